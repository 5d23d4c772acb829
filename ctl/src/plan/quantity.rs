//! Quantities of CPU as Kubernetes writes them: `2`, `0.5`, `500m`.
//!
//! Decides how many thousandths of a CPU that is, rounded up as Kubernetes does.

/// Thousandths of a CPU; `None` for what is none.
pub fn milli_cpus(text: &str) -> Option<u64> {
    if let Some(thousandths) = text.strip_suffix('m') {
        return digits(thousandths)?.parse().ok();
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let (whole, part) = (digits(whole)?.parse::<u64>().ok()?, digits(part)?);
    let thousandths: u64 = format!("{part:0<3}")[..3].parse().ok()?;
    let more = part.bytes().skip(3).any(|digit| digit != b'0');
    whole.checked_mul(1000)?.checked_add(thousandths + u64::from(more))
}

fn digits(text: &str) -> Option<&str> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::milli_cpus;

    #[test]
    fn cpus_are_counted_in_thousandths() {
        for (text, thousandths) in
            [("2", 2000), ("0.5", 500), ("1.25", 1250), ("500m", 500), ("0.0001", 1), ("0", 0)]
        {
            assert_eq!(milli_cpus(text), Some(thousandths), "{text}");
        }
        for none in ["", "m", ".5", "1.", "two", "-1", "1e3", "1.5m", "99999999999999999999"] {
            assert_eq!(milli_cpus(none), None, "{none}");
        }
    }
}
