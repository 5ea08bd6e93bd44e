//! Files that end too early, that are damaged, or that are no captures.

use std::path::Path;

use tcpprobe_replay::capture::{CaptureError, Truncation, read_tcp};

use crate::build::*;

fn error(bytes: &[u8]) -> (CaptureError, String) {
    let file = written(bytes);
    let error = read_tcp(&file.path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cap.pcap"), "names the file: {text}");
    (error, text)
}

/// Fails unless the file is found damaged at this place, for a cause that says this.
#[track_caller]
fn damaged(bytes: &[u8], at: u64, in_frame: u64, says: &str) {
    let (error, text) = error(bytes);
    let CaptureError::Corrupt { offset, frame, ref cause, .. } = error else { panic!("{text}") };
    assert_eq!((offset, frame), (at, in_frame), "{text}");
    assert!(cause.contains(says), "{text}");
}

/// Two frames in a file of either kind, the file's length before the second, and its whole length.
fn two_frames(ng: bool) -> (Vec<u8>, usize) {
    let (order, raw) = (Order::Little, ipv4(&usual_tcp()));
    let mut bytes = if ng {
        [section(order), interface(order, 101, 0, &[]), enhanced(order, 0, 1_000_000, &raw, 63)].concat()
    } else {
        [pcap(order, MICROSECONDS, 101), record(order, 1, 0, &raw, 63)].concat()
    };
    let second = bytes.len();
    bytes.extend(if ng { enhanced(order, 0, 2_000_000, &raw, 63) } else { record(order, 2, 0, &raw, 63) });
    (bytes, second)
}

#[test]
fn a_cut_last_record_is_the_end_not_an_error() {
    for ng in [false, true] {
        let (bytes, second) = two_frames(ng);
        for len in second + 1..bytes.len() {
            let (packets, summary) = read_tcp(&written(&bytes[..len]).path).unwrap();
            assert_eq!(packets, [usual().at(1, Some(1_000_000_000))]);
            let truncated = Truncation { offset: second as u64, after_frame: 1 };
            assert_eq!(summary.capture.truncated, Some(truncated), "{len} bytes");
        }
        for (len, frames) in [(second, 1), (bytes.len(), 2)] {
            let (packets, summary) = read_tcp(&written(&bytes[..len]).path).unwrap();
            assert_eq!((packets.len(), summary.capture.truncated), (frames, None));
        }
    }
}

#[test]
fn a_cut_file_header() {
    damaged(&pcap(Order::Big, MICROSECONDS, 1)[..10], 0, 0, "cut after 10 of 24 bytes");
    damaged(&section(Order::Big)[..27], 0, 0, "section header");
    damaged(&section(Order::Big)[..4], 0, 0, "section header");
}

#[test]
fn an_empty_file() {
    let (error, text) = error(b"");
    assert!(matches!(error, CaptureError::Empty { .. }), "{text}");
    assert!(text.contains("empty"), "{text}");
}

#[test]
fn a_compressed_file_that_is_cut_at_its_beginning() {
    for bytes in [&b"\x1f\x8b\x08\x00\x00\x00\x00\x00"[..], b"\x28\xb5\x2f\xfd\x04\x00"] {
        let (error, text) = error(bytes);
        assert!(matches!(error, CaptureError::Corrupt { frame: 0, .. }), "{text}");
        assert!(text.contains("the compressed file ends before its first frame"), "{text}");
    }
}

#[test]
fn files_of_other_kinds() {
    let kinds: [(&[u8], &str); 6] = [
        (b"12:00:01.5 IP 192.0.2.1.40000 > 198.51.100.7.443: Flags [S]", "text"),
        (b"SQLite format 3\0\x10\x00", "SQLite"),
        (b"\xfd7zXZ\0\x00\x04", "unxz"),
        (b"snoop\0\0\0\0\0\0\x02", "snoop"),
        (b"\x7fELF\x02\x01\x01", "7f 45 4c 46"),
        (b"\x0a\x0d", "0a 0d"),
    ];
    for (bytes, says) in kinds {
        let (error, text) = error(bytes);
        assert!(matches!(error, CaptureError::NotACapture { .. }), "{text}");
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_file_that_is_not_there() {
    let error = read_tcp(Path::new("/nonexistent/cap.pcap")).unwrap_err();
    assert!(matches!(error, CaptureError::Io { .. }));
    assert_eq!(error.to_string(), "cannot read the capture /nonexistent/cap.pcap");
    assert!(std::error::Error::source(&error).is_some(), "the system's words are the cause");
}

#[test]
fn a_folder_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read_tcp(folder.path()).unwrap_err(), CaptureError::Io { .. }));
}

#[test]
fn hostile_record_lengths() {
    let (mut bytes, second) = two_frames(false);
    bytes[second + 8..second + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    damaged(&bytes, second as u64, 2, "a record of 4294967311 bytes");
    let (_, text) = error(&bytes);
    assert!(text.contains("editcap -r") && text.ends_with("1-1"), "a way out: {text}");
    // Below the bound a length is believed, and the file then ends within the record.
    bytes[second + 8..second + 12].copy_from_slice(&60_000_000_u32.to_le_bytes());
    assert!(read_tcp(&written(&bytes).path).unwrap().1.capture.truncated.is_some());
}

#[test]
fn hostile_block_lengths() {
    let (good, second) = two_frames(true);
    for (len, says) in [
        (u32::MAX - 3, "a block of 4294967292 bytes"),
        (0, "a block of 0 bytes"),
        (8, "a block of 8 bytes"),
        (97, "a block of 97 bytes"),
        (64, "a block of 64 bytes ends with"),
        (16, "a block of 16 bytes ends with"),
    ] {
        let mut bytes = good.clone();
        bytes[second + 4..second + 8].copy_from_slice(&len.to_le_bytes());
        damaged(&bytes, second as u64, 2, says);
    }
}

#[test]
fn blocks_that_contradict_themselves() {
    let order = Order::Little;
    let raw = ipv4(&usual_tcp());
    let start = [section(order), interface(order, 101, 0, &[])].concat();
    let at = start.len() as u64;

    let unknown = enhanced(order, 3, 0, &raw, 63);
    damaged(&[&start[..], &unknown].concat(), at, 1, "interface 3");
    let mut captured = enhanced(order, 0, 0, &raw, 63);
    captured[20..24].copy_from_slice(&65_u32.to_le_bytes());
    damaged(&[&start[..], &captured].concat(), at, 1, "claims 65 captured bytes");
    damaged(&[&start[..], &block(order, 6, &[0; 12])].concat(), at, 1, "too short");
    damaged(&[&start[..], &block(order, 3, &[])].concat(), at, 1, "too short");
    damaged(&[&start[..], &block(order, 5, &[0; 4])].concat(), at, 1, "interface statistics");
    damaged(&[section(order), block(order, 1, &[0; 4])].concat(), 28, 1, "interface description");
    damaged(&[section(order), block(order, 3, &[0; 4])].concat(), 28, 1, "interface 0");

    let mut version = section(order);
    version[12] = 2;
    damaged(&version, 0, 0, "version 2.0");
    let mut magic = section(order);
    magic[8] = 0;
    damaged(&magic, 0, 0, "byte-order magic");
}

#[test]
fn a_tail_of_zeros() {
    // As a power loss leaves it: no longer pcapng, but still classic records without bytes.
    let (bytes, _) = two_frames(true);
    damaged(&[&bytes[..], &[0; 64]].concat(), bytes.len() as u64, 3, "a block of 0 bytes");
    let (bytes, _) = two_frames(false);
    let (packets, summary) = read_tcp(&written(&[&bytes[..], &[0; 64]].concat()).path).unwrap();
    assert_eq!((packets.len(), summary.capture.packets), (2, 6));
}
