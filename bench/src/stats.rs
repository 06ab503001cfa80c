//! Statistics of samples: medians, percentiles, spread, and the significance of a difference.
//!
//! A contender runs in rounds, interleaved with the others. Its figure is the median of the medians
//! of its rounds; its spread is the distance between the rounds. Two contenders are compared round
//! by round, because a disturbance of the machine affects neighbours in time alike.
//!
//! Pure.

use serde::{Deserialize, Serialize};

/// The distance from 1 below which a ratio counts as equal.
const EQUAL: f64 = 0.05;

/// The summary of one contender's samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median of the medians of the rounds.
    pub median: f64,
    /// The median of all samples together.
    pub p50: f64,
    /// The 99th percentile of all samples together.
    pub p99: f64,
    /// Half the distance between the quartiles of the rounds, as a part of the median.
    pub spread: f64,
    pub samples: usize,
    /// The median of each round.
    pub rounds: Vec<f64>,
}

impl Summary {
    /// Summarizes the samples of each round. Returns `None` without samples.
    pub fn of(rounds: &[Vec<f64>]) -> Option<Self> {
        let medians: Vec<f64> = rounds.iter().filter_map(|round| quantile(round, 0.5)).collect();
        let all: Vec<f64> = rounds.concat();
        let median = quantile(&medians, 0.5)?;
        let apart = quantile(&medians, 0.75)? - quantile(&medians, 0.25)?;
        Some(Self {
            median,
            p50: quantile(&all, 0.5)?,
            p99: quantile(&all, 0.99)?,
            spread: if median == 0.0 { 0.0 } else { apart / 2.0 / median },
            samples: all.len(),
            rounds: medians,
        })
    }
}

/// The direction that is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Better {
    Lower,
    Higher,
}

/// The comparison of our figure with that of a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The factor by which our figure is better. A value over 1 is good for us with every unit.
    pub times: f64,
    /// The lower quartile of the factor over the rounds.
    pub low: f64,
    /// The upper quartile of the factor over the rounds.
    pub high: f64,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Better,
    Worse,
    Equal,
    /// The rounds disagree about the better contender.
    TooNoisy,
}

impl Ratio {
    /// Compares round by round. Returns `None` without rounds, or with zero as the divisor.
    pub fn of(ours: &Summary, peer: &Summary, better: Better) -> Option<Self> {
        let pairs = ours.rounds.iter().zip(&peer.rounds);
        let ratios: Vec<f64> = pairs
            .map(|(ours, peer)| match better {
                Better::Lower => peer / ours,
                Better::Higher => ours / peer,
            })
            .filter(|ratio| ratio.is_finite() && *ratio > 0.0)
            .collect();
        let times = quantile(&ratios, 0.5)?;
        let (low, high) = (quantile(&ratios, 0.25)?, quantile(&ratios, 0.75)?);
        let verdict = if low >= 1.0 - EQUAL && high <= 1.0 + EQUAL {
            Verdict::Equal
        } else if low > 1.0 {
            Verdict::Better
        } else if high < 1.0 {
            Verdict::Worse
        } else {
            Verdict::TooNoisy
        };
        Some(Self { times, low, high, verdict })
    }
}

/// Returns the value below which the fraction `part` of the samples lies, interpolated linearly.
pub fn quantile(samples: &[f64], part: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = part * (sorted.len().checked_sub(1)?) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(rounds: &[f64]) -> Summary {
        let rounds: Vec<Vec<f64>> = rounds.iter().map(|&round| vec![round]).collect();
        Summary::of(&rounds).unwrap()
    }

    #[test]
    fn quantiles_lie_between_neighbours_in_proportion() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0], 0.5), Some(1.5));
        assert_eq!(quantile(&[0.0, 10.0, 20.0, 30.0, 40.0], 0.25), Some(10.0));
    }

    #[test]
    fn the_figure_is_the_median_of_the_rounds_medians() {
        let summary = Summary::of(&[vec![1.0, 2.0, 90.0], vec![3.0], vec![4.0, 4.0]]).unwrap();
        assert_eq!(summary.median, 3.0);
        assert_eq!((summary.samples, summary.rounds.clone()), (6, vec![2.0, 3.0, 4.0]));
        assert!(summary.p99 > 80.0);
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[vec![]]), None);
    }

    #[test]
    fn a_ratio_over_one_is_good_for_us_whatever_is_measured() {
        let (small, big) = (summary(&[1.0, 1.1, 1.0]), summary(&[2.0, 2.2, 2.0]));
        let lower = Ratio::of(&small, &big, Better::Lower).unwrap();
        assert_eq!((lower.times, lower.verdict), (2.0, Verdict::Better));
        let higher = Ratio::of(&small, &big, Better::Higher).unwrap();
        assert_eq!((higher.times, higher.verdict), (0.5, Verdict::Worse));
    }

    #[test]
    fn rounds_that_disagree_decide_nothing() {
        let (ours, peer) = (summary(&[1.0, 2.0, 1.0, 2.0]), summary(&[2.0, 1.0, 2.0, 1.0]));
        assert_eq!(Ratio::of(&ours, &peer, Better::Lower).unwrap().verdict, Verdict::TooNoisy);
        let near = summary(&[1.01, 2.0, 0.99, 2.0]);
        assert_eq!(Ratio::of(&ours, &near, Better::Lower).unwrap().verdict, Verdict::Equal);
        assert_eq!(Ratio::of(&summary(&[0.0]), &peer, Better::Lower), None);
    }
}
