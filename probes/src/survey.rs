//! What could be recorded here: every way to every point, each tried singly and taken back, and the verdict on it.
//!
//! Owns the trials and the decision. Must not know their wording for a terminal, nor captures.

use aya::maps::MapType;
use aya::sys::is_map_supported;
use aya::{Btf, Ebpf};

use crate::check::{Facts, Lockdown, raise_memlock, version};
use crate::filter::Filter;
use crate::plan::{Backend, Point, Program, WAYS, Way};
use crate::refusal::lacking;
use crate::sampler::{Error, Options, attach, describe, load_object, unload};

/// How a trial went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It was attached, and detached again.
    Attachable,
    /// It cannot be, for this reason.
    Refused(String),
    /// Nothing is known: this user may not try.
    Untried,
}

/// One way to watch a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trials {
    /// The backend that it belongs to; `None`: to all of them.
    pub backend: Option<Backend>,
    /// Its programs, as `how/target`.
    pub programs: Vec<String>,
    /// How it went.
    pub trial: Trial,
}

/// A point, and all ways to watch it, best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedPoint {
    /// The point.
    pub point: Point,
    /// Its ways.
    pub ways: Vec<Trials>,
}

impl SurveyedPoint {
    /// The way that a recording takes unless told otherwise: the best that can be attached.
    pub fn chosen(&self) -> Option<&Trials> {
        self.ways.iter().find(|w| w.trial == Trial::Attachable)
    }

    /// The ways of a backend, with those that every backend uses.
    pub fn of_backend(&self, backend: Backend) -> impl Iterator<Item = &Trials> {
        self.ways.iter().filter(move |w| w.backend.is_none_or(|b| b == backend))
    }
}

/// What stands in the way of recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Older than Linux 5.10, the oldest that is supported.
    OldKernel,
    /// The kernel does not describe its types.
    NoBtf,
    /// Kernel lockdown forbids reading kernel memory.
    Lockdown,
    /// These capabilities are missing.
    MissingCapabilities(Vec<&'static str>),
    /// The capabilities count in a user namespace only.
    UserNamespace,
    /// The limit of locked memory, in bytes, is too low, and this user may not raise it.
    Memlock(u64),
    /// The kernel has no BPF ring buffer.
    NoRingBuffer,
    /// The programs and their maps cannot be prepared, for another reason.
    Load(String),
    /// A point that a recording needs cannot be watched.
    Point(Point),
}

/// Can samples be recorded?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes, but for these points, which a recording can do without.
    Possible {
        /// Points that are not watched.
        unwatched: Vec<Point>,
    },
    /// No.
    Impossible {
        /// Why, what to change first in front.
        obstacles: Vec<Obstacle>,
    },
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What is known without trying.
    pub facts: Facts,
    /// Can a BPF ring buffer be made? `None`: this user may not try.
    pub ring_buffer: Option<bool>,
    /// Every point, in the order of attaching.
    pub points: Vec<SurveyedPoint>,
    /// The verdict.
    pub verdict: Verdict,
}

/// Tries everything, with maps of the sizes of a real recording. What is attached for it records nothing, and is
/// detached before this returns.
pub fn survey(ring_bytes: u32, max_flows: u32) -> Survey {
    raise_memlock();
    let facts = Facts::gather();
    let ring_buffer = is_map_supported(MapType::RingBuf).ok();
    // a mark that no socket is likely to have: nothing is recorded
    let filter = Filter { mark: Some(u32::MAX), ..Filter::default() };
    let options = Options { filter, backend: None, ring_bytes, sparse: false, max_flows };
    let (loaded, failed) = match prepare(&options) {
        Ok(loaded) => (Some(loaded), None),
        Err(error) => (None, Some(error)),
    };
    let points = try_points(loaded, &facts);
    let verdict = decide(&facts, ring_buffer, failed, &points);
    Survey { facts, ring_buffer, points, verdict }
}

fn prepare(options: &Options) -> Result<(Ebpf, Btf), Error> {
    let btf = Btf::from_sys_fs().map_err(|e| Error::NoBtf(e.to_string()))?;
    Ok((load_object(options, &btf)?, btf))
}

fn try_points(mut loaded: Option<(Ebpf, Btf)>, facts: &Facts) -> Vec<SurveyedPoint> {
    let mut trials = |way: &Way| Trials {
        backend: way.backend,
        programs: way.programs.iter().map(describe).collect(),
        trial: match &mut loaded {
            Some((ebpf, btf)) => try_way(ebpf, btf, way),
            None => untried(way, facts),
        },
    };
    Point::ALL
        .map(|point| SurveyedPoint { point, ways: WAYS.iter().filter(|w| w.point == point).map(&mut trials).collect() })
        .into()
}

fn try_way(ebpf: &mut Ebpf, btf: &Btf, way: &Way) -> Trial {
    let refused = way.programs.iter().find_map(|p| try_program(ebpf, btf, p).err().map(|why| (p, why)));
    for program in way.programs {
        if let Some(p) = ebpf.program_mut(program.name) {
            // an error here means that it is not attached, which is what is wanted
            let _ = unload(p);
        }
    }
    match refused {
        None => Trial::Attachable,
        Some((program, why)) if way.programs.len() > 1 => Trial::Refused(format!("{}: {why}", describe(program))),
        Some((_, why)) => Trial::Refused(why),
    }
}

fn try_program(ebpf: &mut Ebpf, btf: &Btf, program: &Program) -> Result<(), String> {
    let loaded = ebpf.program_mut(program.name).ok_or("not in the object")?;
    attach(loaded, program, btf)
}

/// What can be said of a way without trying it: only what the kernel shows to everyone.
fn untried(way: &Way, facts: &Facts) -> Trial {
    let lack = way.programs.iter().find_map(|p| lacking(p.how, facts));
    lack.map_or(Trial::Untried, |lack| Trial::Refused(lack.to_owned()))
}

fn decide(facts: &Facts, ring_buffer: Option<bool>, failed: Option<Error>, points: &[SurveyedPoint]) -> Verdict {
    let unseen: Vec<Point> = points.iter().filter(|p| p.chosen().is_none()).map(|p| p.point).collect();
    let needed: Vec<Point> = unseen.iter().copied().filter(|p| !p.is_optional()).collect();
    if failed.is_none() && needed.is_empty() {
        return Verdict::Possible { unwatched: unseen };
    }
    let mut obstacles = Vec::new();
    if version(&facts.kernel_release) < (5, 10) {
        obstacles.push(Obstacle::OldKernel);
    }
    if !facts.has_btf {
        obstacles.push(Obstacle::NoBtf);
    }
    if facts.lockdown == Some(Lockdown::Confidentiality) {
        obstacles.push(Obstacle::Lockdown);
    }
    let missing = facts.missing_for_bpf();
    if !missing.is_empty() {
        obstacles.push(Obstacle::MissingCapabilities(missing));
    }
    if facts.in_user_namespace {
        obstacles.push(Obstacle::UserNamespace);
    }
    if ring_buffer == Some(false) {
        obstacles.push(Obstacle::NoRingBuffer);
    }
    match failed {
        Some(Error::Memlock { limit_bytes }) => obstacles.push(Obstacle::Memlock(limit_bytes)),
        // otherwise it is said already
        Some(error) if obstacles.is_empty() => obstacles.push(Obstacle::Load(error.to_string())),
        Some(_) => {}
        None if obstacles.is_empty() => obstacles.extend(needed.into_iter().map(Obstacle::Point)),
        None => {}
    }
    Verdict::Impossible { obstacles }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Memlock;

    fn root() -> Facts {
        let kernel_release = "6.18.0".to_owned();
        Facts { kernel_release, has_btf: true, effective: u64::MAX, ..Facts::default() }
    }

    /// Every point with one way, which can be attached but at `refused`.
    fn points(refused: &[Point]) -> Vec<SurveyedPoint> {
        let way = |point| Trials {
            backend: None,
            programs: vec!["tp_btf/tested".to_owned()],
            trial: if refused.contains(&point) { Trial::Refused("it is not there".into()) } else { Trial::Attachable },
        };
        Point::ALL.map(|point| SurveyedPoint { point, ways: vec![way(point)] }).into()
    }

    fn obstacles(verdict: Verdict) -> Vec<Obstacle> {
        match verdict {
            Verdict::Impossible { obstacles } => obstacles,
            Verdict::Possible { .. } => Vec::new(),
        }
    }

    #[test]
    fn a_point_is_missed_by_name_and_only_a_needed_one_makes_recording_impossible() {
        assert_eq!(decide(&root(), Some(true), None, &points(&[])), Verdict::Possible { unwatched: vec![] });
        let unwatched = vec![Point::ReceiveOther];
        assert_eq!(decide(&root(), Some(true), None, &points(&unwatched)), Verdict::Possible { unwatched });
        let verdict = decide(&root(), Some(true), None, &points(&[Point::Retransmit, Point::Transmit]));
        assert_eq!(obstacles(verdict), [Obstacle::Point(Point::Transmit)]);
    }

    #[test]
    fn without_capabilities_nothing_else_is_blamed() {
        let facts = Facts { effective: 1 << 39, ..root() };
        let failed = Error::NoPermission { missing: "CAP_PERFMON".into() };
        let verdict = decide(&facts, None, Some(failed), &points(&Point::ALL));
        assert_eq!(obstacles(verdict), [Obstacle::MissingCapabilities(vec!["CAP_PERFMON"])]);
        let contained = Facts { in_user_namespace: true, ..root() };
        let verdict = decide(&contained, None, Some(Error::UserNamespace), &points(&Point::ALL));
        assert_eq!(obstacles(verdict), [Obstacle::UserNamespace]);
    }

    #[test]
    fn without_capabilities_the_kernel_is_said_to_lack_only_what_it_shows_to_everyone() {
        let facts = Facts { kprobes: Some(false), effective: 0, ..root() };
        for point in try_points(None, &facts) {
            for way in point.ways {
                let kprobe = way.backend == Some(Backend::Kprobe);
                assert_eq!(way.trial != Trial::Untried, kprobe, "{way:?}");
            }
        }
    }

    #[test]
    fn low_memlock_on_5_10_is_the_obstacle() {
        let memlock = Some(Memlock { limit_bytes: Some(65_536) });
        let facts = Facts { kernel_release: "5.10.0-28".into(), memlock, ..root() };
        let failed = Error::Memlock { limit_bytes: 65_536 };
        let verdict = decide(&facts, Some(true), Some(failed), &points(&Point::ALL));
        assert_eq!(obstacles(verdict), [Obstacle::Memlock(65_536)]);
    }

    #[test]
    fn what_the_kernel_itself_lacks() {
        let facts = Facts { has_btf: false, kernel_release: "5.4.0-42".into(), ..root() };
        let verdict = decide(&facts, Some(false), Some(Error::NoBtf("none".into())), &points(&Point::ALL));
        assert_eq!(obstacles(verdict), [Obstacle::OldKernel, Obstacle::NoBtf, Obstacle::NoRingBuffer]);
        let facts = Facts { lockdown: Some(Lockdown::Confidentiality), ..root() };
        let verdict = decide(&facts, Some(true), None, &points(&Point::ALL));
        assert_eq!(obstacles(verdict), [Obstacle::Lockdown]);
    }

    #[test]
    fn the_way_that_is_chosen_is_the_first_that_attaches() {
        let way = |how: &str, trial| Trials { backend: None, programs: vec![how.to_owned()], trial };
        let ways = vec![way("a", Trial::Untried), way("b", Trial::Attachable), way("c", Trial::Attachable)];
        let point = SurveyedPoint { point: Point::State, ways };
        assert_eq!(point.chosen().map(|w| w.programs.join("")), Some("b".to_owned()));
    }
}
