//! Hands inputs to a reader for a while: no panic, no hang, no more memory than allowed; what it fails at is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use fastrand::Rng;
use peak_alloc::PeakAlloc;

use crate::mutate::mutate;

/// No input may take a reader longer: thousands of times what a usual one takes.
const HANG: Duration = Duration::from_secs(30);

/// What the last panic said, and where; some are in threads of the reader.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Reads an input; an error says what is wrong with how it went.
pub type Reader = dyn Fn(&[u8]) -> Result<(), String>;

/// A reader of outside bytes.
pub struct Target {
    /// What it is called, and its folder in the corpus.
    pub name: &'static str,
    /// What its format begins parts at multiples of, in bytes, or about how long they are.
    pub block_bytes: usize,
    /// Whole inputs besides those of the corpus.
    pub seeds: Vec<Vec<u8>>,
    /// Reads one, and says what is wrong with how it went. An input that is refused went well.
    pub read: Box<Reader>,
    /// How many bytes may be allocated at once for this input, besides it.
    pub most_bytes: fn(&[u8]) -> usize,
}

/// How long, from which seed, or which one input.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Time for each target.
    pub time: Duration,
    /// Determines the inputs.
    pub seed: u64,
    /// This input alone.
    pub input: Option<PathBuf>,
}

impl Plan {
    /// `TCPPROBE_FUZZ_SECONDS` (5 unless given), `TCPPROBE_FUZZ_SEED` (1), `TCPPROBE_FUZZ_INPUT` (a path).
    pub fn from_environment() -> Plan {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Plan {
            time: Duration::from_secs(number("TCPPROBE_FUZZ_SECONDS").unwrap_or(5)),
            seed: number("TCPPROBE_FUZZ_SEED").unwrap_or(1),
            input: std::env::var_os("TCPPROBE_FUZZ_INPUT").map(PathBuf::from),
        }
    }
}

/// The folder of this package, where corpus and failures are.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Tries the corpus of a target, then mutations of it until the time is over. Returns how many inputs were tried.
///
/// # Errors
/// What went wrong, where the input is kept, and the command that tries it again.
pub fn run(target: &Target, plan: &Plan, memory: &'static PeakAlloc) -> Result<u64, String> {
    // said once, with the input, and not into the list of tests
    std::panic::set_hook(Box::new(|panic| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
    let watched = Watch::start(target.name);
    let attempt = |input: &[u8], origin: &str| {
        watched.set(Some(input));
        let outcome = attempt(target, input, memory);
        watched.set(None);
        outcome.map_err(|what| format!("{what}\n  {origin}\n{}", keep(target.name, input)))
    };
    if let Some(path) = &plan.input {
        let input = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        return attempt(&input, "the input that was asked for").map(|()| 1);
    }
    let mut seeds = Vec::new();
    for (path, input) in corpus(target.name)? {
        attempt(&input, &path.display().to_string())?;
        seeds.push(input);
    }
    for (i, input) in target.seeds.iter().enumerate() {
        attempt(input, &format!("whole input {i}"))?;
        seeds.push(input.clone());
    }
    if seeds.is_empty() {
        return Err(format!("nothing to begin with in {}/corpus/{}", folder().display(), target.name));
    }
    let (begin, mut tried) = (Instant::now(), seeds.len() as u64);
    let mut rng = Rng::with_seed(plan.seed);
    while begin.elapsed() < plan.time {
        let seed = rng.usize(..seeds.len());
        let input = mutate(&mut rng, &seeds[seed], &seeds, target.block_bytes);
        tried += 1;
        attempt(&input, &format!("input {tried} of TCPPROBE_FUZZ_SEED={}", plan.seed))?;
    }
    Ok(tried)
}

fn attempt(target: &Target, input: &[u8], memory: &PeakAlloc) -> Result<(), String> {
    memory.reset_peak_usage();
    let before = memory.current_usage();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let taken = memory.peak_usage().saturating_sub(before);
    match read {
        Ok(outcome) => outcome?,
        Err(_) => return Err(LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    }
    let most = (target.most_bytes)(input);
    if taken > most {
        return Err(format!("{} bytes made it allocate {taken}, and {most} may be", input.len()));
    }
    Ok(())
}

/// The inputs of the corpus, in the order of their names.
fn corpus(name: &str) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let folder = folder().join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), std::fs::read(&path).map_err(failed)?))).collect()
}

/// Keeps an input under a name that follows from it; says where, and how to try it again.
fn keep(name: &str, input: &[u8]) -> String {
    let folder = folder().join("failures");
    // FNV-1a: short, and the same on every machine
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let path = folder.join(format!("{name}-{hash:016x}"));
    if let Err(e) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)) {
        return format!("  cannot be kept in {}: {e}", path.display());
    }
    let path = path.display();
    format!("  again: TCPPROBE_FUZZ_INPUT={path} cargo test -p tcpprobe-fuzz --test inputs -- --exact {name}")
}

/// The input that is being read, since when.
type Reading = Option<(Instant, Vec<u8>)>;

/// Ends the process where a reader does not come back: a thread cannot be ended.
struct Watch {
    now: Arc<Mutex<Reading>>,
}

impl Watch {
    fn start(name: &'static str) -> Watch {
        let now = Arc::new(Mutex::new(None));
        let watched: Weak<Mutex<Reading>> = Arc::downgrade(&now);
        std::thread::spawn(move || {
            while let Some(now) = watched.upgrade() {
                let reading = now.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, input)) = &*reading
                    && since.elapsed() > HANG
                {
                    eprintln!("{name}: no end after {HANG:?}\n{}", keep(name, input));
                    std::process::exit(1);
                }
                drop(reading);
                drop(now);
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        Watch { now }
    }

    fn set(&self, input: Option<&[u8]>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = input.map(|input| (Instant::now(), input.to_vec()));
    }
}
