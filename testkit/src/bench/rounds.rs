//! Medians of rounds. A machine is noisy: baseline and subject take turns in one run, and a round whose baseline
//! is far from the others' is marked as busy and run again.

/// How far a round's baseline may be from the median of all.
const BUSY: f64 = 0.30;

/// The middle one; the mean of the two in the middle where the count is even. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(*lower, upper))
}

/// For each round whether its baseline is more than 30 % from the median of all: the machine did something else.
#[must_use]
pub fn busy(baselines: &[f64]) -> Vec<bool> {
    let middle = median(baselines).unwrap_or_default();
    let is_busy = |baseline: &f64| (baseline / middle - 1.0).abs() > BUSY;
    baselines.iter().map(is_busy).collect()
}

#[cfg(test)]
mod tests {
    use super::{busy, median};

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_round_with_a_far_off_baseline_is_busy() {
        let baselines = [100.0, 101.0, 65.0, 99.0, 131.0];
        assert_eq!(busy(&baselines), [false, false, true, false, true]);
    }
}
