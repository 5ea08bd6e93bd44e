//! Which of the flows that agree with connections are them: where two answers are possible, none is given.
//!
//! Owns the decision; must not know numbers of packets or samples.

use super::agreement::Proof;
use super::connections::Connection;
use super::index::Candidate;

use crate::hash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

/// A flow that agrees with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) flow: u32,
    pub(crate) candidate: Candidate,
    pub(crate) proof: Proof,
    /// How many segments agree.
    pub(crate) segments: usize,
    /// Does the capture have the flow as it is, too?
    pub(crate) untranslated: bool,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Each connection's flow, at one of its ends or at each.
    pub(crate) chosen: Vec<Fit>,
    /// Connections of one of several flows.
    pub(crate) undecided: Vec<u32>,
}

impl Fit {
    fn is_proven(&self) -> bool {
        self.proof > Proof::Possible
    }

    /// Is another one nearly as good as this?
    fn is_rivalled_by(&self, other: &Fit) -> bool {
        // what only may be is no rival to equal numbers
        let comparable = other.proof == self.proof || (other.proof == Proof::Possible && self.proof == Proof::Places);
        other.proof > self.proof || (comparable && other.segments * 2 > self.segments)
    }
}

/// Decides for all connections at once.
pub(crate) fn choose(mut fits: Vec<Fit>, connections: &[Connection]) -> Choice {
    fits.sort_unstable_by_key(|f| (f.candidate.connection, f.candidate.local, f.flow));
    // those of one connection, or of one flow, are all that can stand in each other's way
    let mut of_connections: HashMap<u32, Vec<&Fit>> = HashMap::new();
    let mut of_flows: HashMap<u32, Vec<&Fit>> = HashMap::new();
    for fit in &fits {
        of_connections.entry(fit.candidate.connection).or_default().push(fit);
        of_flows.entry(fit.flow).or_default().push(fit);
    }
    let mut choice = Choice::default();
    let mut taken = HashSet::new();
    for fit in fits.iter().filter(|f| f.is_proven()) {
        let connection = fit.candidate.connection;
        let others = of_connections[&connection].iter().chain(&of_flows[&fit.flow]);
        if !is_alone(fit, others.copied(), connections) {
            choice.undecided.push(connection);
        } else {
            choice.chosen.push(*fit);
            taken.insert(connection);
        }
    }
    choice.undecided.dedup();
    choice.undecided.retain(|c| !taken.contains(c));
    choice
}

fn is_alone<'a>(fit: &Fit, mut others: impl Iterator<Item = &'a Fit>, connections: &[Connection]) -> bool {
    let is_shifted = fit.proof != Proof::Numbers;
    // the capture would show the flow under two numberings: only one of them can be told to the reader of its rows
    if is_shifted && fit.untranslated {
        return false;
    }
    let place = |f: &Fit| (f.candidate.connection, f.candidate.local);
    let ends = |f: &Fit| connections[f.candidate.connection as usize].ends;
    others.all(|other| {
        if other == fit {
            return true;
        }
        if place(other) == place(fit) {
            return !fit.is_rivalled_by(other);
        }
        if other.flow != fit.flow {
            return true;
        }
        // one socket is not both ends of a connection
        if other.candidate.connection == fit.candidate.connection {
            return !fit.is_rivalled_by(other);
        }
        // equal numbers may be seen in several places; others are the same connection only if it was taken for two
        let same = ends(other) == ends(fit) && other.candidate.shifts == fit.candidate.shifts;
        same || !is_shifted || !fit.is_rivalled_by(other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::Shifts;
    use crate::translation::testing::{connection_of, transfer};

    fn fit(flow: u32, connection: u32, proof: Proof, segments: usize) -> Fit {
        let own = if proof == Proof::Numbers { 0 } else { 500 };
        let candidate = Candidate::new(connection, 0, Shifts { own, ..Shifts::default() });
        Fit { flow, candidate, proof, segments, untranslated: false }
    }

    fn decide(fits: &[Fit]) -> (Vec<(u32, u32)>, Vec<u32>) {
        let all: Vec<_> =
            ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.1:3"].map(|a| transfer(a, "10.0.0.9:80", 1, 2, 3)).concat();
        let connections = connection_of(&all);
        let choice = choose(fits.to_vec(), &connections);
        (choice.chosen.iter().map(|f| (f.flow, f.candidate.connection)).collect(), choice.undecided)
    }

    #[test]
    fn one_flow_that_fits_is_it() {
        assert_eq!(decide(&[fit(0, 1, Proof::Places, 20)]), (vec![(0, 1)], vec![]));
        assert_eq!(decide(&[fit(0, 1, Proof::Possible, 20)]), (vec![], vec![]));
    }

    #[test]
    fn of_two_that_fit_equally_none_is() {
        let two = [fit(0, 1, Proof::Places, 20), fit(1, 1, Proof::Places, 18)];
        assert_eq!(decide(&two), (vec![], vec![1]));
        let doubt = [fit(0, 1, Proof::Places, 20), fit(1, 1, Proof::Possible, 18)];
        assert_eq!(decide(&doubt), (vec![], vec![1]));
        let clear = [fit(0, 1, Proof::Places, 20), fit(1, 1, Proof::Possible, 5)];
        assert_eq!(decide(&clear), (vec![(0, 1)], vec![]));
        let stronger = [fit(0, 1, Proof::Places, 20), fit(1, 1, Proof::Numbers, 3)];
        assert_eq!(decide(&stronger).0, [(1, 1)]);
    }

    #[test]
    fn a_flow_is_one_connection_unless_the_numbers_say_more() {
        let two = [fit(0, 0, Proof::Places, 20), fit(0, 1, Proof::Places, 20)];
        assert_eq!(decide(&two), (vec![], vec![0, 1]));
        let seen_twice = [fit(0, 0, Proof::Numbers, 20), fit(0, 1, Proof::Numbers, 20)];
        assert_eq!(decide(&seen_twice), (vec![(0, 0), (0, 1)], vec![]));
        let mut both_ways = fit(0, 0, Proof::Places, 20);
        both_ways.untranslated = true;
        assert_eq!(decide(&[both_ways]), (vec![], vec![0]));
    }
}
