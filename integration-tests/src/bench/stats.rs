//! What a set of measurements comes to: median, percentiles, and the ratio of two sides.
//!
//! Knows nothing of what was measured or in which unit.

/// Measurements of one thing on one side, in whatever unit the caller keeps to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    values: Vec<f64>,
}

impl Samples {
    /// Adds one measurement. One that is not a finite number says nothing and is a bug in the bench.
    pub fn push(&mut self, value: f64) {
        assert!(value.is_finite(), "a measurement is a finite number, not {value}");
        self.values.push(value);
    }

    /// How many measurements there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The middle measurement, or the mean of the two middle ones. `None` if there is none.
    pub fn median(&self) -> Option<f64> {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n % 2 == 1 => Some(sorted[middle]),
            _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        }
    }

    /// The 99th percentile by nearest rank: the smallest measurement that at least 99 % do not exceed.
    /// `None` below 100 measurements, where it would only be another name for the largest.
    pub fn p99(&self) -> Option<f64> {
        let sorted = self.sorted();
        (sorted.len() >= 100).then(|| sorted[(sorted.len() * 99).div_ceil(100) - 1])
    }

    /// The 10th percentile by nearest rank: what a run takes when nothing else is in its way. `None` below
    /// 10 measurements.
    pub fn p10(&self) -> Option<f64> {
        let sorted = self.sorted();
        (sorted.len() >= 10).then(|| sorted[sorted.len().div_ceil(10) - 1])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut samples = Samples::default();
        values.into_iter().for_each(|value| samples.push(value));
        samples
    }
}

/// How many times the reference's figure Berth's is. `None` where a side has none or the reference's is not
/// above zero.
pub fn ratio(berth: Option<f64>, reference: Option<f64>) -> Option<f64> {
    let (berth, reference) = (berth?, reference?);
    (reference > 0.0).then(|| berth / reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = f64>) -> Samples {
        values.into_iter().collect()
    }

    #[test]
    fn the_median_of_an_odd_count_is_the_middle_one_whatever_the_order() {
        assert_eq!(samples([9.0, 1.0, 5.0]).median(), Some(5.0));
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(samples([4.0, 1.0, 2.0, 100.0]).median(), Some(3.0));
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(samples([1.0, 1.0, 1.0, 1.0, 1e9]).median(), Some(1.0));
    }

    #[test]
    fn nothing_measured_has_no_median_and_no_ratio() {
        assert_eq!(Samples::default().median(), None);
        assert_eq!(ratio(None, Some(1.0)), None);
        assert_eq!(ratio(Some(1.0), None), None);
    }

    #[test]
    fn p99_is_the_nearest_rank() {
        assert_eq!(samples((1..=100).map(f64::from)).p99(), Some(99.0));
        assert_eq!(samples((1..=300).rev().map(f64::from)).p99(), Some(297.0));
        assert_eq!(samples((1..=101).map(f64::from)).p99(), Some(100.0));
    }

    #[test]
    fn p99_of_too_few_is_not_claimed() {
        assert_eq!(samples((1..=99).map(f64::from)).p99(), None);
    }

    #[test]
    fn p10_is_the_nearest_rank_and_not_the_luckiest_of_few() {
        assert_eq!(samples((1..=100).rev().map(f64::from)).p10(), Some(10.0));
        assert_eq!(samples((1..=11).map(f64::from)).p10(), Some(2.0));
        assert_eq!(samples((1..=9).map(f64::from)).p10(), None);
    }

    #[test]
    fn a_reference_of_zero_gives_no_ratio() {
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
        assert_eq!(ratio(Some(1.0), Some(4.0)), Some(0.25));
    }

    #[test]
    #[should_panic(expected = "finite")]
    fn a_measurement_that_is_no_number_is_refused() {
        Samples::default().push(f64::NAN);
    }
}
