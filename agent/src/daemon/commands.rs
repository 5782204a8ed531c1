//! Commands: a closed list, each done at most once, its end reported as a record.

use bytes::Bytes;
use infratrack_shared::ids::CommandId;
use infratrack_shared::wire::answer::{Action, Command};
use infratrack_shared::wire::event::{CommandOutcome, CommandResult};
use serde::{Deserialize, Serialize};

use crate::daemon::backups::Backups;
use crate::daemon::facts::Facts;
use crate::daemon::link::Link;
use crate::daemon::renewal::Renewing;
use crate::spool::{Spool, SpoolError};

/// The value in the spool.
const NAME: &str = "commands";
/// Ids remembered; older ones have expired long ago.
const REMEMBERED: usize = 200;

/// What is known of past commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    entries: Vec<Entry>,
    /// Received and not yet confirmed to the collector.
    seen: Vec<CommandId>,
    /// How many of `seen` the batch under way carries.
    carried: usize,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Entry {
    id: CommandId,
    ended: bool,
}

impl Commands {
    pub(super) async fn load(spool: &Spool) -> Result<Self, SpoolError> {
        let stored = spool.get(NAME).await?;
        let entries = stored
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Ok(Self {
            entries,
            ..Self::default()
        })
    }

    /// Commands that a crash cut off, as results; they count as ended.
    pub(super) fn interrupted(&mut self) -> Vec<CommandResult> {
        let open = self.entries.iter_mut().filter(|entry| !entry.ended);
        open.map(|entry| {
            entry.ended = true;
            result(entry.id, CommandOutcome::Interrupted, None)
        })
        .collect()
    }

    /// The ids to confirm with the next batch.
    pub(super) fn seen(&mut self) -> Vec<CommandId> {
        self.carried = self.seen.len();
        self.seen.clone()
    }

    /// The batch that carried [`Commands::seen`] was acknowledged.
    pub(super) fn confirmed(&mut self) {
        self.seen.drain(..self.carried.min(self.seen.len()));
        self.carried = 0;
    }

    /// Remembers a command durably. `false`: it was received before; it is only confirmed again.
    pub(super) async fn begin(
        &mut self,
        command: &Command,
        spool: &Spool,
    ) -> Result<bool, SpoolError> {
        if !self.seen.contains(&command.id) {
            self.seen.push(command.id);
        }
        if self.entries.iter().any(|entry| entry.id == command.id) {
            return Ok(false);
        }
        self.entries.push(Entry {
            id: command.id,
            ended: false,
        });
        let excess = self.entries.len().saturating_sub(REMEMBERED);
        self.entries.drain(..excess);
        self.save(spool).await?;
        Ok(true)
    }

    /// Remembers that its result is in the spool.
    pub(super) async fn end(&mut self, id: CommandId, spool: &Spool) -> Result<(), SpoolError> {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == id) {
            entry.ended = true;
        }
        self.save(spool).await
    }

    pub(super) async fn save(&self, spool: &Spool) -> Result<(), SpoolError> {
        let text = serde_json::to_vec(&self.entries).unwrap_or_default();
        spool.put(NAME, Bytes::from(text)).await
    }
}

/// Carries a command out.
pub(super) async fn execute(
    command: &Command,
    (facts, link, backups): (&mut Facts, &mut Link, &Backups),
    spool: &Spool,
) -> CommandResult {
    let done = match command.action {
        Action::RefreshFacts => refresh(facts, spool)
            .await
            .map_err(|error| error.to_string()),
        Action::Renew => {
            let renewing = match command.target {
                Some(_) => Renewing::AnotherHost,
                None => Renewing::SameHost,
            };
            let renewed = link.renew(renewing).await;
            renewed.map_err(|error| format!("{error:#}"))
        }
        Action::RefreshVolumes => backups.refresh().await,
        Action::RunBackup => {
            let volume = command.target.as_deref().unwrap_or_default();
            backups.run(volume).await
        }
        Action::RunDrill => {
            let volume = command.target.as_deref().unwrap_or_default();
            backups.drill(volume).await
        }
        Action::Verify | Action::Unsupported => {
            return result(command.id, CommandOutcome::Unsupported, None);
        }
    };
    match done {
        Ok(()) => result(command.id, CommandOutcome::Done, None),
        Err(reason) => result(command.id, CommandOutcome::Failed, Some(reason)),
    }
}

/// The result of a command that came too late.
pub(super) fn expired(command: &Command) -> CommandResult {
    result(command.id, CommandOutcome::Expired, None)
}

async fn refresh(facts: &mut Facts, spool: &Spool) -> Result<(), SpoolError> {
    facts.collect(spool).await?;
    facts.want_all(spool).await
}

fn result(id: CommandId, outcome: CommandOutcome, detail: Option<String>) -> CommandResult {
    CommandResult {
        id,
        outcome,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use infratrack_shared::time::UnixMillis;

    use super::*;

    fn command() -> Command {
        Command {
            id: CommandId::random(),
            expires_at: UnixMillis(0),
            action: Action::RefreshFacts,
            target: None,
        }
    }

    #[tokio::test]
    async fn a_repeated_command_is_confirmed_again_and_not_done_again() {
        let spool = Spool::in_memory(UnixMillis(0));
        let mut commands = Commands::load(&spool).await.expect("loaded");
        let command = command();
        assert!(commands.begin(&command, &spool).await.expect("stored"));
        assert_eq!(commands.seen(), [command.id]);
        commands.confirmed();
        assert!(commands.seen().is_empty());
        assert!(!commands.begin(&command, &spool).await.expect("stored"));
        assert_eq!(commands.seen(), [command.id]);
    }

    #[tokio::test]
    async fn a_command_cut_off_by_a_crash_is_interrupted_once() {
        let spool = Spool::in_memory(UnixMillis(0));
        let mut commands = Commands::load(&spool).await.expect("loaded");
        let (cut_off, ended) = (command(), command());
        commands.begin(&cut_off, &spool).await.expect("stored");
        commands.begin(&ended, &spool).await.expect("stored");
        commands.end(ended.id, &spool).await.expect("stored");
        let mut after = Commands::load(&spool).await.expect("loaded");
        let results = after.interrupted();
        assert_eq!(
            results.iter().map(|r| r.id).collect::<Vec<_>>(),
            [cut_off.id]
        );
        after.save(&spool).await.expect("stored");
        let mut later = Commands::load(&spool).await.expect("loaded");
        assert!(later.interrupted().is_empty());
        assert!(!later.begin(&cut_off, &spool).await.expect("stored"));
    }
}
