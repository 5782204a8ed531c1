//! Heartbeats of other hosts while something else is measured.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, ensure};

use super::connection::Target;
use super::drive::{self, Load};
use super::members::{Member, Registry};
use super::percentile;
use super::sender::Sender;

/// They are counted in chunks of this.
const CHUNK: Duration = Duration::from_secs(5);

/// Heartbeats from a thread of their own, as long as it is asked for.
#[derive(Debug)]
pub struct Beats {
    ends: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<u32>>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// How long they took to be acknowledged, in milliseconds; NaN of none.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Beats {
    /// Begins; `rate` is that of all hosts, a second.
    pub fn start(
        address: SocketAddr,
        registry: &Arc<Registry>,
        members: Vec<Member>,
        rate: f64,
    ) -> anyhow::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let target = Target {
            address,
            name: registry.server_name()?,
        };
        let (registry, end, all) = (
            Arc::clone(registry),
            Arc::clone(&ends),
            Arc::clone(&latencies),
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let senders = members.into_iter().enumerate();
                let senders = senders.map(|(index, member)| Sender::new(index, member));
                let (mut lines, _) = drive::open(&registry, &target, senders.collect()).await?;
                while !end.load(Ordering::Relaxed) {
                    let load = Load {
                        in_flight: 64,
                        lasts: CHUNK,
                        rate: Some(rate),
                    };
                    let driven;
                    (lines, driven) = drive::live(lines, load).await?;
                    ensure!(driven.refused() == 0, "heartbeats were refused: {driven:?}");
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.extend(driven.latencies_us);
                }
                anyhow::Ok(())
            })
        });
        Ok(Self {
            ends,
            latencies,
            thread,
        })
    }

    /// Those since the last time.
    pub fn take(&self) -> Took {
        let mut all = self
            .latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *all);
        taken.sort_unstable();
        let took: Vec<_> = taken
            .iter()
            .map(|us| Duration::from_micros((*us).into()))
            .collect();
        let at = |share| {
            if took.is_empty() {
                f64::NAN
            } else {
                percentile(&took, share).as_secs_f64() * 1000.0
            }
        };
        Took {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
        }
    }

    /// Ends them, and says whether any was refused.
    pub fn stop(self) -> anyhow::Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the heartbeats' thread panicked"))?
    }
}
