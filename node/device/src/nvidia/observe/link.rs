//! NVLinks: where each of a GPU's links ends, and what that makes between two GPUs.
//!
//! Decides how links through a switch are counted: two GPUs that hang on the same switches have as many as the one with fewer.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings;
use plan::{Gpu, PciAddress};

use super::raw;

/// A GPU at the other end of a link.
const GPU: u32 = bindings::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_GPU;

/// A switch there.
const SWITCH: u32 = bindings::nvmlIntNvLinkDeviceType_enum_NVML_NVLINK_DEVICE_TYPE_SWITCH;

/// Where the active links of one GPU end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Ends {
    /// At these GPUs, one entry for each link.
    gpus: Vec<PciAddress>,
    /// At switches.
    switches: u32,
}

/// What a link ends at (`nvmlIntNvLinkDeviceType_t`).
enum Kind {
    Gpu,
    Switch,
    /// Something else, such as a CPU.
    Other,
    /// The driver does not say.
    Unsaid,
}

/// The link ends of each of `gpus`. `listed` are all GPUs that the kernel has, answering or not.
pub(super) fn ends(nvml: &Nvml, gpus: &[Gpu], listed: &[PciAddress]) -> Vec<Ends> {
    let of = |gpu: &Gpu| match nvml.device_by_index(gpu.index) {
        Ok(device) => ends_of(&device, listed),
        Err(_) => Ends::default(),
    };
    gpus.iter().map(of).collect()
}

fn ends_of(device: &Device<'_>, listed: &[PciAddress]) -> Ends {
    let mut ends = Ends::default();
    for number in 0..bindings::NVML_NVLINK_MAX_LINKS {
        let link = device.link_wrapper_for(number);
        match link.is_active() {
            Ok(true) => {}
            // A link that is down, or a number that this GPU has no link for.
            Ok(false) | Err(NvmlError::InvalidArg) => continue,
            // No links at all, or nothing to be learned of them.
            Err(_) => break,
        }
        let remote = link.remote_pci_info().ok().and_then(|pci| pci.bus_id.parse().ok());
        match (remote_kind(device, number), remote) {
            (Kind::Gpu, Some(pci)) => ends.gpus.push(pci),
            (Kind::Unsaid, Some(pci)) if listed.contains(&pci) => ends.gpus.push(pci),
            (Kind::Switch | Kind::Unsaid, _) => ends.switches += 1,
            (Kind::Gpu | Kind::Other, _) => {}
        }
    }
    ends
}

/// What is at the other end of a link.
fn remote_kind(device: &Device<'_>, link: u32) -> Kind {
    match raw::remote_device_type(device, link) {
        None => Kind::Unsaid,
        Some(GPU) => Kind::Gpu,
        Some(SWITCH) => Kind::Switch,
        Some(_) => Kind::Other,
    }
}

/// NVLinks between two GPUs: those that go directly, else those that both have to switches.
pub(super) fn between(one: &Ends, one_at: PciAddress, other: &Ends, other_at: PciAddress) -> u32 {
    let direct = |ends: &Ends, to| ends.gpus.iter().filter(|pci| **pci == to).count();
    // A link is up at both ends or at none; if the two disagree, the smaller number is safe.
    let direct = direct(one, other_at).min(direct(other, one_at));
    match u32::try_from(direct).unwrap_or(u32::MAX) {
        0 => one.switches.min(other.switches),
        direct => direct,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bus: u8) -> PciAddress {
        PciAddress { domain: 0, bus, device: 0, function: 0 }
    }

    fn direct(to: &[u8]) -> Ends {
        Ends { gpus: to.iter().map(|bus| at(*bus)).collect(), switches: 0 }
    }

    fn switched(switches: u32) -> Ends {
        Ends { gpus: Vec::new(), switches }
    }

    #[test]
    fn gpus_on_switches_have_as_many_links_as_the_one_with_fewer() {
        assert_eq!(between(&switched(18), at(1), &switched(18), at(2)), 18);
        assert_eq!(between(&switched(12), at(1), &switched(11), at(2)), 11);
        assert_eq!(between(&switched(18), at(1), &switched(0), at(2)), 0);
    }

    #[test]
    fn direct_links_count_towards_their_gpu_alone() {
        let (one, two, three) = (direct(&[2, 2, 3]), direct(&[1, 1]), direct(&[1]));
        assert_eq!(between(&one, at(1), &two, at(2)), 2);
        assert_eq!(between(&three, at(3), &one, at(1)), 1);
        assert_eq!(between(&two, at(2), &three, at(3)), 0);
    }

    #[test]
    fn a_link_that_only_one_end_reports_does_not_count() {
        assert_eq!(between(&direct(&[2]), at(1), &direct(&[]), at(2)), 0);
    }
}
