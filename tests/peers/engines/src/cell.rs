//! One cell of the table: all targets, in turn, with as many clients.

use crate::answers::Mode;
use crate::measure::{Figures, measure};
use crate::stats::median;
use crate::targets::{Kind, Target};
use std::time::Duration;

/// What is asked, by how many, how often and for how long.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    /// How answers come.
    pub(crate) mode: Mode,
    /// At once.
    pub(crate) clients: usize,
    /// Their medians are told.
    pub(crate) rounds: usize,
    /// Of each figure.
    pub(crate) time: Duration,
}

/// What a target did in a cell.
pub(crate) struct Row {
    /// Which.
    pub(crate) name: &'static str,
    /// How answers came.
    pub(crate) mode: Mode,
    /// At once.
    pub(crate) clients: usize,
    /// Medians of its rounds; memory at the end of the last, and all errors.
    pub(crate) figures: Figures,
    /// Its rate divided by that of the bare proxy in the same round, the median of that.
    pub(crate) to_bare: Option<f64>,
    /// What went wrong first.
    pub(crate) first_error: Option<String>,
}

impl Cell {
    /// Every target in each round, each time in another order, so that none has the machine at its best.
    pub(crate) async fn measure(self, targets: &[Target]) -> Vec<Row> {
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); targets.len()];
        let mut errors: Vec<Option<String>> = vec![None; targets.len()];
        for round in 0..self.rounds {
            for turn in 0..targets.len() {
                let at = (turn + round) % targets.len();
                let (figures, error) = measure(&targets[at], self.mode, self.clients, self.time).await;
                rounds[at].push(figures);
                errors[at] = errors[at].take().or(error);
            }
        }
        let bare = targets.iter().position(|target| target.kind == Kind::Bare).map(|at| rounds[at].clone());
        let row = |((target, rounds), first_error): ((&Target, &Vec<Figures>), Option<String>)| Row {
            name: target.kind.name(),
            mode: self.mode,
            clients: self.clients,
            figures: together(rounds),
            to_bare: bare.as_ref().map(|bare| ratio(rounds, bare)),
            first_error,
        };
        targets.iter().zip(&rounds).zip(errors).map(row).collect()
    }
}

fn together(rounds: &[Figures]) -> Figures {
    let of = |part: fn(&Figures) -> f64| median(rounds.iter().map(part).collect());
    Figures {
        rate: of(|f| f.rate),
        p50: of(|f| f.p50),
        p99: of(|f| f.p99),
        cpu: of(|f| f.cpu),
        rss: rounds.last().map_or(0.0, |f| f.rss),
        errors: rounds.iter().map(|f| f.errors).sum(),
    }
}

fn ratio(rounds: &[Figures], bare: &[Figures]) -> f64 {
    median(rounds.iter().zip(bare).map(|(one, bare)| one.rate / bare.rate.max(f64::MIN_POSITIVE)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_compared_one_by_one() {
        let rounds = |rates: [f64; 3]| rates.map(|rate| Figures { rate, rss: rate, errors: 1, ..Figures::default() });
        let (one, bare) = (rounds([10.0, 30.0, 20.0]), rounds([20.0, 30.0, 80.0]));
        assert_eq!(ratio(&one, &bare), 0.5);
        let told = together(&one);
        assert_eq!((told.rate, told.rss, told.errors), (20.0, 20.0, 3));
    }
}
