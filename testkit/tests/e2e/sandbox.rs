//! The agent's unit from inside: what it may not do is refused, what it may take is bounded. The unit is the
//! package's, with another program in it.

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use crate::control::Control;

/// Tries everything; prints the name of each attempt and what came of it.
const PROBE: &str = r#"
import ctypes, errno, json, mmap, os, socket, stat
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    ctypes.set_errno(0)
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def syscall(number, *arguments):
    call("syscall", number, *arguments)

def suid():
    path = "/var/lib/infratrack-agent/probe"
    open(path, "w").close()
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)

attempts = {
    "write /etc": lambda: open("/etc/probe", "w"),
    "write /usr": lambda: open("/usr/bin/probe", "w"),
    "write /home": lambda: open("/home/ops/probe", "w"),
    "read /root": lambda: os.listdir("/root"),
    "read /etc/shadow": lambda: open("/etc/shadow"),
    "write a kernel setting": lambda: open("/proc/sys/kernel/hostname", "w").write("probe"),
    "write a cgroup": lambda: os.mkdir("/sys/fs/cgroup/probe"),
    "open the memory": lambda: open("/dev/mem", "rb"),
    "open the kernel log": lambda: open("/dev/kmsg", "rb"),
    "ptrace": lambda: call("ptrace", 16, 1, 0, 0),
    "signal another process": lambda: os.kill(1, 0),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "user namespace": lambda: call("unshare", 0x10000000),
    "mount namespace": lambda: call("unshare", 0x00020000),
    "mount": lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "load a module": lambda: syscall(175, b"", 0, b""),
    "keyring": lambda: syscall(248, b"user", b"probe", b"x", 1, -3),
    "become root": lambda: os.setuid(0),
    "set the clock": lambda: syscall(227, 0, (ctypes.c_long * 2)(1, 0)),
    "set the host's name": lambda: call("sethostname", b"probe", 5),
    "memory to write and to run": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "set-user-id file": suid,
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
}
results = {}
for name, attempt in attempts.items():
    try:
        attempt()
        results[name] = "done"
    except OSError as error:
        results[name] = errno.errorcode.get(error.errno, str(error.errno))
open("/var/lib/infratrack-agent/probe.json", "w").write(json.dumps(results))
"#;

const HOST: &str = crate::HOSTS[0];

/// Every attempt is refused, while the agent's own work went on before.
pub(crate) fn holds(control: &Control<'_>) -> anyhow::Result<()> {
    run(control, PROBE)?;
    let results = control
        .rig
        .exec(HOST, &["cat", "/var/lib/infratrack-agent/probe.json"])?;
    let results: Map<String, Value> = serde_json::from_str(&results)?;
    let done: Vec<_> = results
        .iter()
        .filter(|(_, result)| *result == "done")
        .collect();
    ensure!(
        results.len() > 20 && done.is_empty(),
        "not refused: {done:?}"
    );
    control
        .rig
        .exec(HOST, &["rm", "/var/lib/infratrack-agent/probe.json"])?;
    rated(control)
}

/// What systemd itself says of the units.
fn rated(control: &Control<'_>) -> anyhow::Result<()> {
    for (host, unit, most) in [
        (HOST, "infratrack-agent", 2.0),
        (HOST, "infratrack-updates@check", 2.0),
        (super::COLLECTOR, "infratrack-collector", 1.5),
    ] {
        let service = format!("{unit}.service");
        let said = control.rig.exec(
            host,
            &["systemd-analyze", "security", "--no-pager", &service],
        )?;
        let last = said.lines().last().context("nothing said")?;
        let score = last
            .split_whitespace()
            .find_map(|word| word.parse::<f32>().ok());
        let score = score.with_context(|| format!("no score in {last}"))?;
        ensure!(
            score <= most,
            "{unit} is rated {score}, at most {most} is wanted"
        );
    }
    Ok(())
}

/// Memory over the limit is refused by a kill; the CPU's quota holds.
pub(crate) fn limits_bite(control: &Control<'_>) -> anyhow::Result<()> {
    let greedy = "data = bytearray(300 << 20)\nopen('/var/lib/infratrack-agent/survived', 'w')";
    ensure!(run(control, greedy).is_err(), "300 MiB were had");
    let survived = control
        .rig
        .try_exec(HOST, &["test", "-e", "/var/lib/infratrack-agent/survived"])?;
    ensure!(!survived.status.success(), "300 MiB were had");
    let busy = "import time\nbegun = time.monotonic()\nwhile time.monotonic() - begun < 4: pass\n\
                open('/var/lib/infratrack-agent/cpu', 'w').write(str(time.process_time()))";
    run(control, busy)?;
    let cpu: f32 = control
        .rig
        .exec(HOST, &["cat", "/var/lib/infratrack-agent/cpu"])?
        .trim()
        .parse()?;
    ensure!(cpu < 2.6, "{cpu} s of CPU in 4 s, the quota is half");
    control
        .rig
        .exec(HOST, &["rm", "/var/lib/infratrack-agent/cpu"])?;
    Ok(())
}

/// Runs a Python program in the agent's unit, in place of the agent.
fn run(control: &Control<'_>, program: &str) -> anyhow::Result<()> {
    let unit = "set -e\n\
        printf '%s' \"$1\" > /usr/local/lib/probe.py\n\
        sed -e '/^ConditionPathExists=/d; /^Restart/d; /^WatchdogSec=/d; s/^Type=.*/Type=oneshot/' \
            -e 's|^ExecStart=.*|ExecStart=/usr/bin/python3 /usr/local/lib/probe.py|' \
            -e '/^RuntimeDirectory/d' \
            /usr/lib/systemd/system/infratrack-agent.service > /run/systemd/system/probe.service\n\
        systemctl daemon-reload\n\
        systemctl start probe.service";
    control
        .rig
        .exec(HOST, &["sh", "-c", unit, "sh", program])
        .map(drop)
}
