//! A network namespace with a wire to ours, and what goes wrong on it.
//!
//! Needs root, ip(8), tc(8) and nft(8), and no netem, which not every kernel has: loss is a rule of nftables
//! inside the namespace, and a packet that is to come twice or late takes a second, slow wire. Nothing is
//! changed in our own namespace but the near ends of the wires, and all of it is gone when this is dropped.
//! Addresses are of 198.18.0.0/15, which is set aside for tests between networks (RFC 2544).

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use nix::unistd::Uid;

/// What the slow wire passes: a packet of 1.5 kB takes a tenth of a second.
const SLOW: &str = "120kbit";
/// Wires of one process.
const WIRES: u32 = 8;
/// As many of them fit into the range.
const NETWORKS: u32 = 1 << 15;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What happens to what passes, as percents of the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Clear,
    /// Nothing passes, in either direction, and nobody is told.
    Silent,
    /// Of both directions.
    Loss(u8),
    /// What leaves the namespace comes, and comes again later.
    Twice(u8),
    /// What leaves the namespace is overtaken.
    Late(u8),
}

/// See the module.
#[derive(Debug)]
pub struct Wire {
    name: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
    /// The fast and the slow wire, our ends and theirs.
    devices: [[String; 2]; 2],
}

impl Wire {
    /// Makes one; `None` where that is not possible here, with the reason printed.
    #[expect(clippy::print_stderr, reason = "a test that can't run says so")]
    pub fn make() -> anyhow::Result<Option<Self>> {
        let tools = ["ip", "tc", "nft"].map(|tool| [tool, if tool == "nft" { "-v" } else { "-V" }]);
        let have = |tool: &[&str; 2]| run(tool).is_ok();
        if !Uid::effective().is_root() || !tools.iter().all(have) {
            eprintln!("no network namespace: needs root, ip, tc and nft");
            return Ok(None);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % WIRES;
        let pid = std::process::id();
        let network = (pid.wrapping_mul(WIRES) + number) % NETWORKS;
        let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + network * 4;
        let device = |kind: &str| format!("it{:x}{number}{kind}", pid & 0xff_ffff);
        let wire = Self {
            name: format!("infratrack-{pid}-{number}"),
            near: Ipv4Addr::from(first + 1),
            far: Ipv4Addr::from(first + 2),
            devices: ["f", "s"].map(|kind| ["a", "b"].map(|end| device(&format!("{kind}{end}")))),
        };
        if let Err(error) = wire.lay() {
            eprintln!("no network namespace: {error:#}");
            return Ok(None);
        }
        Ok(Some(wire))
    }

    fn lay(&self) -> anyhow::Result<()> {
        let name = self.name.as_str();
        run(&["ip", "netns", "add", name])?;
        for [near, far] in &self.devices {
            run(&[
                "ip", "link", "add", near, "type", "veth", "peer", "name", far,
            ])?;
            run(&["ip", "link", "set", far, "netns", name])?;
        }
        let [[fast_near, fast_far], [slow_near, slow_far]] = &self.devices;
        // What takes the slow wire is addressed as if it had taken the other.
        let address = std::fs::read_to_string(format!("/sys/class/net/{fast_near}/address"))?;
        run(&["ip", "link", "set", slow_near, "address", address.trim()])?;
        let near = format!("{}/30", self.near);
        run(&["ip", "address", "add", &near, "dev", fast_near])?;
        self.inside(&[
            "ip",
            "address",
            "add",
            &format!("{}/30", self.far),
            "dev",
            fast_far,
        ])?;
        for [near, far] in &self.devices {
            run(&["ip", "link", "set", near, "up"])?;
            self.inside(&["ip", "link", "set", far, "up"])?;
        }
        self.inside(&["ip", "link", "set", "lo", "up"])?;
        let shape = ["root", "tbf", "rate", SLOW, "burst", "2k", "limit", "100k"];
        let queue = ["tc", "qdisc", "add", "dev", slow_far];
        self.inside(&[&queue[..], &shape[..]].concat())?;
        let chain = |name, hook| {
            format!(
                "add chain netdev wire {name} {{ type filter hook {hook} device {fast_far} priority 0; }}"
            )
        };
        self.nft("add table netdev wire")?;
        self.nft(&chain("out", "egress"))?;
        self.nft(&chain("in", "ingress"))
    }

    /// What happens from here on; what was counted before is forgotten.
    pub fn set(&self, weather: Weather) -> anyhow::Result<()> {
        self.nft("flush chain netdev wire out; flush chain netdev wire in")?;
        let slow = &self.devices[1][1];
        let part = |percent: u8| format!("numgen random mod 100 < {percent} counter");
        let (out, back) = match weather {
            Weather::Clear => return Ok(()),
            Weather::Silent => ("counter drop".to_owned(), Some("counter drop".to_owned())),
            Weather::Loss(percent) => {
                let rule = format!("{} drop", part(percent));
                (rule.clone(), Some(rule))
            }
            Weather::Twice(percent) => (format!("{} dup to {slow}", part(percent)), None),
            Weather::Late(percent) => (format!("{} dup to {slow} drop", part(percent)), None),
        };
        self.nft(&format!("add rule netdev wire out ip protocol tcp {out}"))?;
        match back {
            Some(back) => self.nft(&format!("add rule netdev wire in ip protocol tcp {back}")),
            None => Ok(()),
        }
    }

    /// How many packets the weather has met since it was set.
    pub fn fired(&self) -> anyhow::Result<u64> {
        let rules = self.inside(&["nft", "list", "table", "netdev", "wire"])?;
        let counted = rules.split("counter packets ").skip(1);
        let packets = counted.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        Ok(packets.sum())
    }

    /// Our end's address, for whoever is to be reached from inside.
    pub fn address(&self) -> Ipv4Addr {
        self.near
    }

    /// A command that runs `program` inside.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        self.inside(&["nft", rules]).map(drop)
    }

    fn inside(&self, command: &[&str]) -> anyhow::Result<String> {
        run(&[&["ip", "netns", "exec", &self.name], command].concat())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // With the far ends, the near ones go.
        run(&["ip", "netns", "delete", &self.name]).ok();
        for [near, _] in &self.devices {
            run(&["ip", "link", "delete", near]).ok();
        }
    }
}

fn run(command: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = command.split_first().context("a command")?;
    let done = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    anyhow::ensure!(
        done.status.success(),
        "{}: {}",
        command.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
