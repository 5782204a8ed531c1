//! `node_exporter` and `zabbix_agentd` from the distribution, as processes of the benchmark on ports of its own, asked
//! as their servers would ask them.
//!
//! Prometheus scrapes every 15 s over one connection and takes gzip. A Zabbix server asks for the items of its template
//! for Linux hosts, here each once a minute, with a connection for each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::process::Process;

pub const NODE_EXPORTER: &str = "prometheus-node-exporter";
pub const ZABBIX_AGENTD: &str = "zabbix_agentd";
/// How often Prometheus scrapes where nobody says otherwise.
pub const SCRAPE: Duration = Duration::from_secs(15);
/// How often a Zabbix server asks for most items of the template.
pub const POLL: Duration = Duration::from_secs(60);

/// `zabbix_agentd` takes no port above these, and none below is free for all.
const PORTS: RangeInclusive<u16> = 19_050..=32_767;
const START: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(5);
/// What the template "Linux by Zabbix agent" asks for, its discoveries left out.
pub const ITEMS: [&str; 36] = [
    "agent.ping",
    "agent.version",
    "agent.hostname",
    "system.uptime",
    "system.boottime",
    "system.hostname",
    "system.uname",
    "system.sw.arch",
    "system.localtime",
    "system.users.num",
    "kernel.maxproc",
    "kernel.maxfiles",
    "proc.num",
    "proc.num[,,run]",
    "system.cpu.num",
    "system.cpu.load[all,avg1]",
    "system.cpu.load[all,avg5]",
    "system.cpu.load[all,avg15]",
    "system.cpu.util[,user]",
    "system.cpu.util[,system]",
    "system.cpu.util[,iowait]",
    "system.cpu.util[,idle]",
    "system.cpu.util[,nice]",
    "system.cpu.util[,interrupt]",
    "system.cpu.util[,softirq]",
    "system.cpu.util[,steal]",
    "system.cpu.switches",
    "system.cpu.intr",
    "vm.memory.size[total]",
    "vm.memory.size[available]",
    "vm.memory.size[pavailable]",
    "system.swap.size[,total]",
    "system.swap.size[,free]",
    "system.swap.size[,pfree]",
    "vfs.file.cksum[/etc/passwd,sha256]",
    "vfs.fs.get",
];

/// A running `node_exporter`.
#[derive(Debug)]
pub struct NodeExporter {
    pub process: Process,
    address: SocketAddr,
    connection: Option<TcpStream>,
}

impl NodeExporter {
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(NODE_EXPORTER);
        command.arg(format!("--web.listen-address={address}"));
        let log = dir.join("node-exporter.log");
        let process = Process::start(&mut command, &log, Stdio::null())?;
        let mut exporter = Self {
            process,
            address,
            connection: None,
        };
        let deadline = Instant::now() + START;
        while let Err(error) = exporter.scrape() {
            give_up(&mut exporter.process, &log, deadline, error)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(exporter)
    }

    /// Answers how many bytes its answer had.
    pub fn scrape(&mut self) -> anyhow::Result<usize> {
        let mut stream = match self.connection.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        let host = self.address;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let bytes = read_chunked(&mut stream)?;
        self.connection = Some(stream);
        Ok(bytes)
    }
}

/// A running `zabbix_agentd`.
#[derive(Debug)]
pub struct ZabbixAgentd {
    pub process: Process,
    address: SocketAddr,
}

impl ZabbixAgentd {
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let address = free_address()?;
        let config = dir.join("zabbix_agentd.conf");
        // As the package has it, but for where it listens and writes, and with no server to send to.
        let text = format!(
            "Server=127.0.0.1\nListenIP={}\nListenPort={}\nHostname=bench\nAllowRoot=1\n\
             LogType=console\nPidFile={}\n",
            address.ip(),
            address.port(),
            dir.join("zabbix_agentd.pid").display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(ZABBIX_AGENTD);
        command.arg("-f").arg("-c").arg(&config);
        let log = dir.join("zabbix-agentd.log");
        let process = Process::start(&mut command, &log, Stdio::null())?;
        let mut agent = Self { process, address };
        let deadline = Instant::now() + START;
        while let Err(error) = agent.ask("agent.ping") {
            give_up(&mut agent.process, &log, deadline, error)?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(agent)
    }

    /// Asks for every item; answers how many bytes the values had.
    pub fn poll(&self) -> anyhow::Result<usize> {
        let mut bytes = 0;
        for item in ITEMS {
            let value = self.ask(item)?;
            let unknown = value.starts_with(b"ZBX_NOTSUPPORTED");
            // A rate has no value before its second look.
            ensure!(
                !unknown || item.contains("cpu.util"),
                "it does not know {item}"
            );
            bytes += value.len();
        }
        Ok(bytes)
    }

    fn ask(&self, item: &str) -> anyhow::Result<Vec<u8>> {
        let mut stream = connect(self.address)?;
        let mut request = b"ZBXD\x01".to_vec();
        request.extend_from_slice(&(item.len() as u64).to_le_bytes());
        request.extend_from_slice(item.as_bytes());
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let value = answer
            .strip_prefix(b"ZBXD\x01")
            .and_then(|rest| rest.get(8..));
        Ok(value.context("it answers no Zabbix server")?.to_vec())
    }
}

/// Ends a daemon as its service would be ended; it ends its own children then.
pub async fn stop(mut process: Process) -> anyhow::Result<()> {
    process.signal(Signal::SIGTERM);
    process.ended(START).await.map(drop)
}

fn give_up(
    process: &mut Process,
    log: &Path,
    deadline: Instant,
    error: anyhow::Error,
) -> anyhow::Result<()> {
    if process.has_ended()? || Instant::now() > deadline {
        let log = std::fs::read_to_string(log).unwrap_or_default();
        return Err(error.context(format!("it does not start: {log}")));
    }
    Ok(())
}

/// Nobody's at the moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    let mut addresses = PORTS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let free = addresses.find(|address| TcpListener::bind(address).is_ok());
    free.context("no port is free")
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Reads one answer of HTTP/1.1 to its last chunk or byte.
fn read_chunked(stream: &mut TcpStream) -> anyhow::Result<usize> {
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "its answer has no end");
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if is_whole(&answer)? {
            ensure!(
                answer.starts_with(b"HTTP/1.1 200"),
                "it does not answer 200"
            );
            return Ok(answer.len());
        }
    }
}

fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = answer.split_at(end + 4);
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    match length {
        Some(length) => Ok(body.len() >= length.trim().parse()?),
        None => Ok(body.ends_with(b"0\r\n\r\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::is_whole;

    #[test]
    fn an_answer_ends_with_its_last_chunk_or_byte() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert!(is_whole(sized).unwrap());
        assert!(!is_whole(&sized[..sized.len() - 1]).unwrap());
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        assert!(is_whole(chunked).unwrap());
        assert!(!is_whole(&chunked[..chunked.len() - 4]).unwrap());
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\n").unwrap());
    }
}
