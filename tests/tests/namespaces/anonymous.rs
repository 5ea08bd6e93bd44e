//! `record --anonymize`: nothing says whose the recording is, and a join finds what it finds.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use tcpprobe_tests::lab::Ns;
use tcpprobe_tests::scene::Scene;

use crate::expect::{expect_number, expect_sound};

const KEY: &str = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301";

/// Does a file hold an address in no form, as text or as bytes, and none of these words?
fn expect_absent(path: &Path, addresses: &[IpAddr], words: &[&str]) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    ensure!(!bytes.is_empty(), "{} is empty", path.display());
    let holds = |what: &[u8]| bytes.windows(what.len()).any(|w| w == what);
    for address in addresses {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        ensure!(!holds(&octets) && !holds(address.to_string().as_bytes()), "{} has {address}", path.display());
    }
    let found: Vec<_> = words.iter().filter(|word| holds(word.as_bytes())).collect();
    ensure!(found.is_empty(), "{} has {found:?}", path.display());
    Ok(())
}

pub(crate) fn shared(scene: &Scene) -> Result<()> {
    let key = scene.file("key");
    std::fs::write(&key, KEY)?;
    let key = key.to_str().context("a folder that is no text")?;
    let hosts = "10.77.0.0/16";
    let arguments = ["-i", scene.lab.interface(Ns::A), "--host", hosts, "--anonymize", "--anonymize-key", key];
    let recorder = scene.record(Ns::A, &arguments)?;
    scene.send(scene.transfer(1_000_000))?;
    Scene::stop(recorder)?;
    let addresses = [scene.lab.ipv4(Ns::A), scene.lab.ipv4(Ns::B)];
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let folder = scene.file("");
    let words = [folder.to_str().context("a folder that is no text")?, hosts, "--anonymize"];
    expect_absent(&scene.trace(), &addresses, &words)?;
    expect_absent(&scene.capture(), &addresses, &words)?;
    expect_number(scene, 0, &format!("SELECT count(*) FROM sessions WHERE host = '{}' OR host <> ''", host.trim()))?;
    expect_sound(scene, 1)?;
    // both ends are in 10.77.1.0/30, and still share thirty bits
    let rewritten: (String, String) = scene.database()?.query_row(
        "SELECT local_addr, remote_addr FROM flows WHERE remote_port = ?1",
        [scene.port],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let bits = |text: &str| Ok::<_, anyhow::Error>(u32::from(text.parse::<std::net::Ipv4Addr>()?));
    let common = (bits(&rewritten.0)? ^ bits(&rewritten.1)?).leading_zeros();
    ensure!(common == 30, "{rewritten:?} have {common} bits in common");
    scene.join_and_check(&scene.capture(), &[])
}
