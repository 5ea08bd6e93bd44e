//! Every scenario in `fixtures/scenarios`, through a real trace, a real capture, the join and SQL, on one thread and
//! on several. One test for each file; and some whose scenarios are made up.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use libtest_mimic::{Arguments, Trial};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tcpprobe_fixtures::check::compare;
use tcpprobe_fixtures::generate::{self, Fate, Settings, Step, Timestamps};
use tcpprobe_fixtures::scenario::Scenario;
use tcpprobe_replay::join::{Batching, join};
use tcpprobe_trace::join::{JoinWriter, Match};
use tcpprobe_trace::verify::verify;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/scenarios");
    let trials = match files(&folder) {
        Ok(files) => files.into_iter().map(trial).chain(WORLDS.iter().map(property)).collect(),
        Err(e) => vec![Trial::test("scenarios", move || Err(format!("{}: {e:#}", folder.display()).into()))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.insert(path);
        }
    }
    ensure!(!files.is_empty(), "no scenarios");
    Ok(files)
}

fn trial(path: PathBuf) -> Trial {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Trial::test(name.clone(), move || run(&path).map_err(|e| format!("scenario {name}: {e:#}").into()))
}

fn run(path: &Path) -> Result<()> {
    let scenario = Scenario::load(path)?;
    joined(&scenario)?;
    Ok(())
}

/// Joins a scenario and compares; returns how many rows have a sample of their own, and how many there are.
fn joined(scenario: &Scenario) -> Result<(usize, usize)> {
    // in memory where that is possible: a disk's delays would be most of the time
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let (trace, capture) = (folder.path().join("trace.db"), folder.path().join("trace.pcap"));
    scenario.write_trace(&trace)?;
    scenario.write_capture(&capture)?;

    let one = ONE.install(|| join(&trace, &capture, Batching::default()))?;
    let several = SEVERAL.install(|| join(&trace, &capture, Batching::default()))?;
    ensure!(one.packets == several.packets, "one thread and four find different rows");
    ensure!(one.capture == several.capture, "one thread and four count differently");

    let mut writer = JoinWriter::begin(&trace, false)?;
    writer.write(&several.capture, several.packets.iter().copied())?;
    writer.commit()?;
    let wrong = compare(scenario, &trace)?;
    ensure!(wrong.is_empty(), "{}\n{}\n\n{}\n", scenario.title, scenario.why.trim(), wrong.join("\n"));
    let mut violations = Vec::new();
    verify(&trace, &mut |violation| {
        violations.push(format!("{violation:?}"));
        Ok(())
    })?;
    ensure!(violations.is_empty(), "{}\n{}\n", scenario.title, violations.join("\n"));
    let own = several.packets.iter().filter(|p| matches!(p.matched, Match::Exact | Match::Within)).count();
    Ok((own, several.packets.len()))
}

/// What may happen to made-up senders, whose packets' true samples are known.
struct World {
    name: &'static str,
    timestamps: &'static [Timestamps],
    /// Do transmit samples have them?
    sampled_timestamps: bool,
    at_receiver: &'static [bool],
    /// How often a captured packet is in the capture.
    sightings: u8,
    /// How many of 100 packets reach the capture.
    seen_percent: u8,
    /// How many of 100 samples reach the trace. Where neither side is whole and nothing stamps the packets, one may
    /// well be taken for another: then nothing can be right, and nothing is tested.
    sampled_percent: u8,
    most_late_us: u16,
}

const EASY: World = World {
    name: "generated_at_the_sender",
    timestamps: &[Timestamps::Off],
    sampled_timestamps: true,
    at_receiver: &[false],
    sightings: 1,
    seen_percent: 80,
    sampled_percent: 100,
    most_late_us: 300,
};
const ANYWHERE: World = World { at_receiver: &[false, true], ..EASY };
const STAMPED: World = World { timestamps: &[Timestamps::Ms, Timestamps::Us], ..ANYWHERE };
const WORLDS: [World; 10] = [
    EASY,
    World { name: "generated_at_the_receiver", at_receiver: &[true], ..EASY },
    World { name: "generated_copies", sightings: 2, ..ANYWHERE },
    World { name: "generated_jitter", most_late_us: 6000, ..ANYWHERE },
    World { name: "generated_holes", seen_percent: 100, sampled_percent: 85, ..ANYWHERE },
    World { name: "generated_timestamps", ..STAMPED },
    World { name: "generated_timestamps_copies", sightings: 2, ..STAMPED },
    World { name: "generated_timestamps_jitter", most_late_us: 6000, ..STAMPED },
    World { name: "generated_timestamps_holes", seen_percent: 100, sampled_percent: 85, ..STAMPED },
    World { name: "generated_timestamps_not_sampled", sampled_timestamps: false, sightings: 2, ..STAMPED },
];

impl World {
    fn settings(&self) -> impl Strategy<Value = Settings> + use<> {
        let (sampled_timestamps, sightings) = (self.sampled_timestamps, self.sightings);
        let hours = select(vec![0, 5]);
        (select(self.timestamps), select(self.at_receiver), hours).prop_map(
            move |(timestamps, at_receiver, capture_ahead_hours)| Settings {
                timestamps,
                sampled_timestamps,
                at_receiver,
                sightings,
                capture_ahead_hours,
            },
        )
    }

    fn fate(&self) -> impl Strategy<Value = Fate> + Clone + use<> {
        // shrinks to a packet that is there
        let seen_percent = self.seen_percent;
        let seen = (0..100u8).prop_map(move |n| n < seen_percent);
        let percent = self.sampled_percent;
        // shrinks to a sample that is there
        let sampled = (0..100u8).prop_map(move |n| n < percent);
        (seen, sampled, 0..=self.most_late_us).prop_map(|(seen, sampled, late_us)| Fate { seen, sampled, late_us })
    }

    fn steps(&self) -> impl Strategy<Value = Vec<Step>> + use<> {
        let fate = self.fate();
        let step = prop_oneof![
            4 => (1..=4u8, fate.clone()).prop_map(|(n, fate)| Step::Send(n, fate)),
            2 => (any::<u8>(), 1..=4u8, fate.clone()).prop_map(|(back, n, fate)| Step::Again(back, n, fate)),
            3 => (0..=5u8, fate).prop_map(|(n, fate)| Step::Ack(n, fate)),
            1 => (0..50_000u32).prop_map(Step::Wait),
        ];
        vec(step, 1..40)
    }
}

fn property(world: &'static World) -> Trial {
    Trial::test(world.name, move || {
        let mut config = Config { failure_persistence: None, ..Config::default() };
        if std::env::var_os("PROPTEST_CASES").is_none() {
            // the same ones at each run: a failure is one of the change that was made
            config.cases = CASES;
            config.rng_seed = RngSeed::Fixed(1);
        }
        let (own, all) = (Cell::new(0), Cell::new(0));
        let outcome = TestRunner::new(config).run(&(world.settings(), world.steps()), |(settings, steps)| {
            let text = generate::scenario(settings, &steps);
            let failed = |e: &dyn Display| TestCaseError::fail(format!("{e}\n{text}"));
            let scenario = Scenario::parse(&text).map_err(|e| failed(&e))?;
            prop_assume!(!scenario.samples.is_empty());
            let (with_own, rows) = joined(&scenario).map_err(|e| failed(&e))?;
            own.set(own.get() + with_own);
            all.set(all.get() + rows);
            Ok(())
        });
        match outcome {
            Ok(()) => {
                eprintln!("{}: {} of {} packets have a sample of their own", world.name, own.get(), all.get());
            }
            Err(TestError::Fail(why, _)) => return Err(why.message().into()),
            Err(why) => return Err(why.to_string().into()),
        }
        Ok(())
    })
}

/// Scenarios for each of [`WORLDS`]; PROPTEST_CASES says otherwise.
const CASES: u32 = 32;

static ONE: LazyLock<ThreadPool> = LazyLock::new(|| pool(1));
static SEVERAL: LazyLock<ThreadPool> = LazyLock::new(|| pool(4));

#[expect(clippy::expect_used, reason = "without threads there is nothing to test")]
fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().expect("threads")
}
