use super::*;

const OWNER: Owner = Owner { session_id: 1, started_ns: 1_700_000_000_000_000_000, mono_base_ns: 5, real_base_ns: 6 };

fn after(number: u64) -> Anchor {
    let mono_ns = number as i64 * 1_000_000;
    Anchor { mono_before_ns: mono_ns, real_ns: mono_ns + 7, mono_after_ns: mono_ns + 20 }
}

/// A trace without anything in it, and the name of its backlog.
fn trace(folder: &tempfile::TempDir) -> (PathBuf, PathBuf) {
    let trace = folder.path().join("trace.db");
    std::fs::write(&trace, "").unwrap();
    let path = beside(&trace);
    (trace, path)
}

fn created(path: &Path) -> BacklogFile {
    let mut file = BacklogFile::create(path).unwrap();
    file.begin(&OWNER).unwrap();
    file
}

/// A file of so many small batches, whose recorder is gone.
fn written(path: &Path, batches: u64) -> Vec<Extent> {
    let mut file = created(path);
    let append = |n: u64| file.append(b"context", &[n as u8 + 1; 50], after(n)).unwrap();
    (0..batches).map(append).collect()
}

fn left(trace: &Path) -> Leftover {
    match Leftover::find(trace).unwrap() {
        Found::Left(left) => left,
        Found::InUse(_) => panic!("in use"),
        Found::Nothing => panic!("nothing"),
    }
}

/// The batches that are whole, by their first byte, and the bytes that are damaged and cut off.
fn read(trace: &Path) -> (Vec<u8>, u64, u64) {
    let left = left(trace);
    let mut batches = left.batches();
    let (mut context, mut records, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(extent) = batches.next().unwrap() {
        if batches.read(&extent, &mut context, &mut records).unwrap() {
            assert_eq!((&context[..], records.len()), (&b"context"[..], 50));
            assert_eq!(extent.after, after(extent.number));
            whole.push(records[0]);
        }
    }
    (whole, batches.damaged_bytes, batches.cut_bytes)
}

fn is_foreign(trace: &Path) -> bool {
    matches!(Leftover::find(trace), Err(Unusable::Foreign(_)))
}

#[test]
fn what_was_put_in_comes_out_and_no_one_else_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    written(&path, 3);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(left(&trace).owner, Some(OWNER));
    assert_eq!(read(&trace), (vec![1, 2, 3], 0, 0));
    assert_eq!(left(&trace).waiting_bytes(0), 150);
    assert_eq!(left(&trace).waiting_bytes(2), 50);
    left(&trace).remove();
    assert!(matches!(Leftover::find(&trace).unwrap(), Found::Nothing));
}

#[test]
fn a_link_to_a_trace_has_the_backlog_of_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("trace.db", &link).unwrap();
    assert_eq!(beside(&link), std::fs::canonicalize(&trace).unwrap().with_file_name(path.file_name().unwrap()));
}

#[test]
fn a_file_is_its_recorder_s_until_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let mut file = BacklogFile::create(&path).unwrap();
    let pid = Some(std::process::id());
    let is_mine = |left: &Leftover| left.owner.is_none() && left.is_empty() && left.pid == pid;
    assert!(matches!(Leftover::find(&trace).unwrap(), Found::InUse(left) if is_mine(&left)));
    assert!(BacklogFile::create(&path).is_err(), "one recorder at a time");
    file.begin(&OWNER).unwrap();
    file.append(b"context", &[1; 50], after(0)).unwrap();
    assert!(matches!(Leftover::find(&trace).unwrap(), Found::InUse(left) if left.waiting_bytes(0) == 50));
    drop(file);
    let first = left(&trace);
    assert!(matches!(Leftover::find(&trace).unwrap(), Found::InUse(_)), "one at a time");
    drop(first);
    assert_eq!(read(&trace).0, [1]);
}

#[test]
fn a_last_batch_that_is_cut_anywhere_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let batches = written(&path, 2);
    let whole = std::fs::read(&path).unwrap();
    for end in batches[0].end()..batches[1].end() {
        std::fs::write(&path, &whole[..end as usize]).unwrap();
        let cut_bytes = end.saturating_sub(batches[1].at);
        assert_eq!(read(&trace), (vec![1], 0, cut_bytes), "cut at {end}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read(&trace), (vec![1, 2], 0, 0));
}

#[test]
fn a_changed_byte_costs_its_batch_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let batches = written(&path, 3);
    let whole = std::fs::read(&path).unwrap();
    for at in batches[1].at..batches[1].end() {
        let mut changed = whole.clone();
        changed[at as usize] ^= 0x10;
        std::fs::write(&path, &changed).unwrap();
        let (read, damaged_bytes, cut_bytes) = read(&trace);
        assert_eq!((read, cut_bytes), (vec![1, 3], 0), "changed at {at}");
        assert!(damaged_bytes > 0);
    }
}

#[test]
fn a_changed_byte_in_the_file_s_head_makes_it_someone_else_s() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    written(&path, 1);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..FILE_HEAD_BYTES + 4 {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        assert!(is_foreign(&trace), "changed at {at}");
    }
    for end in 1..FILE_HEAD_BYTES + 4 {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(is_foreign(&trace), "cut at {end}");
    }
    std::fs::write(&path, "").unwrap();
    assert_eq!(left(&trace).owner, None, "made, and nothing was written");
}

#[test]
fn what_has_the_name_already_is_neither_overwritten_nor_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let target = folder.path().join("precious");
    std::fs::write(&target, "precious").unwrap();

    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(BacklogFile::create(&path).is_err());
    assert!(is_foreign(&trace));
    std::fs::remove_file(&path).unwrap();

    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(BacklogFile::create(&path).is_err());
    assert!(is_foreign(&trace), "and nobody waits for the pipe's other end");
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    assert!(BacklogFile::create(&path).is_err());
    assert!(is_foreign(&trace));
    std::fs::remove_dir(&path).unwrap();

    std::fs::hard_link(&target, &path).unwrap();
    assert!(BacklogFile::create(&path).is_err());
    assert!(is_foreign(&trace));
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[test]
fn what_is_given_back_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let mut file = created(&path);
    let large = vec![1; 1 << 20];
    let extents: Vec<Extent> = (0..3).map(|n| file.append(b"context", &large, after(n)).unwrap()).collect();
    let blocks = || std::fs::metadata(&path).unwrap().blocks();
    let before = blocks();
    give_back(file.file(), &extents[0]);
    give_back(file.file(), &extents[1]);
    assert!(blocks() < before / 2, "{before} blocks before, {} after", blocks());
    drop(file);
    let left = left(&trace);
    assert_eq!(left.waiting_bytes(2), 1 << 20);
    let mut batches = left.batches();
    let numbers: Vec<u64> = std::iter::from_fn(|| batches.next().unwrap()).map(|e| e.number).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[test]
fn sizes_that_cannot_be_and_numbers_that_go_back_are_refused_before_anything_is_read() {
    let whole = Extent {
        number: 4,
        records_bytes: MAX_RECORDS_BYTES,
        after: after(1),
        at: BLOCK_BYTES,
        context_bytes: MAX_CONTEXT_BYTES,
        checksum: 9,
    };
    let read = |extent: Extent| Extent::from_head(&extent.head(1), BLOCK_BYTES, 1);
    assert_eq!(read(whole), Some(whole));
    assert_eq!(read(Extent { records_bytes: MAX_RECORDS_BYTES + 1, ..whole }), None);
    assert_eq!(read(Extent { context_bytes: MAX_CONTEXT_BYTES + 1, ..whole }), None);
    assert_eq!(read(Extent { number: u64::MAX, ..whole }), None);
    let never = Anchor { mono_before_ns: 5, real_ns: 0, mono_after_ns: 4 };
    assert_eq!(read(Extent { after: never, ..whole }), None);
    assert_eq!(Extent::from_head(&whole.head(1), BLOCK_BYTES, 2), None, "of another session");

    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    let mut file = created(&path);
    for number in [7, 7, 3, 8] {
        file.next_number = number;
        file.append(b"context", &[number as u8; 50], after(number)).unwrap();
    }
    drop(file);
    let left = left(&trace);
    let mut batches = left.batches();
    let numbers: Vec<u64> = std::iter::from_fn(|| batches.next().unwrap()).map(|e| e.number).collect();
    assert_eq!((numbers, batches.damaged_bytes), (vec![7, 8], 100));
}

#[test]
fn what_is_set_aside_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, path) = trace(&folder);
    for name in ["trace.db-backlog-damaged", "trace.db-backlog-damaged-2"] {
        written(&path, 1);
        let aside = left(&trace).set_aside().unwrap();
        assert_eq!(aside, folder.path().join(name));
        assert!(!path.exists() && aside.exists());
    }
}
