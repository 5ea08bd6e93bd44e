use super::*;

#[test]
fn the_filter_says_what_the_sampler_s_does() {
    assert_eq!(filter(&[], std::iter::empty()), "(tcp or (ip6[6] = 0 and ip6[40] = 6))");
    assert_eq!(
        filter(&[80, 443], std::iter::empty()),
        "(tcp and (port 80 or port 443) or (ip6[6] = 0 and ip6[40] = 6))"
    );
    let hosts = [("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 8)];
    assert_eq!(
        filter(&[5201], hosts.into_iter()),
        "(tcp and (port 5201) or (ip6[6] = 0 and ip6[40] = 6)) and (net 10.0.0.0/8 or net fd00::/8)"
    );
}

#[test]
fn libpcap_accepts_the_filter() {
    let dead = Capture::dead(Linktype::LINUX_SLL2).unwrap();
    let hosts = [("10.0.0.0".parse().unwrap(), 8), ("fd00::".parse().unwrap(), 8)];
    dead.compile(&filter(&[5201], hosts.into_iter()), true).unwrap();
}

#[test]
fn loopback_is_told_from_other_interfaces() {
    assert!(is_loopback("lo"));
    assert!(!is_loopback("any") && !is_loopback("no-such-if0"));
}

#[test]
fn the_version_stands_in_the_name_of_the_file() {
    let line = |file| format!("7f00-7f01 r--p 00000000 fe:00 394 {file}\n");
    let maps = [line("/usr/lib/libc.so.6"), line("/usr/lib/x86_64-linux-gnu/libpcap.so.1.10.3")].concat();
    assert_eq!(version_in(&maps).as_deref(), Some("1.10.3"));
    assert_eq!(version_in(&line("/usr/bin/tcpprobe")), None);
    assert_eq!(version_in(&line("/usr/lib/libpcap.so.0.8")), None, "that of the interface");
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let error = try_device("no-such-if0", 1 << 20).unwrap_err();
    assert!(error.to_string().contains("no-such-if0"), "{error}");
}

#[test]
fn a_file_that_is_there_is_not_written_over_nor_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("precious.pcap");
    std::fs::write(&path, b"precious").unwrap();
    assert!(matches!(reserve(&path), Err(Error::File { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let (link, target) = (dir.path().join("link.pcap"), dir.path().join("made.pcap"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(matches!(reserve(&link), Err(Error::File { .. })));
    assert!(!target.exists());
}

#[test]
fn a_new_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let file = reserve(&dir.path().join("new.pcap")).unwrap();
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
