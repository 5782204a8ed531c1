//! Typed ids. Each is a UUID (RFC 9562) and travels as 16 bytes in MessagePack, as text in JSON.
//!
//! Version 7 where order by creation helps an index, version 4 where nothing may be learned from it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::time::UnixMillis;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh version 7 id whose time part is `at`.
            pub fn at(at: UnixMillis) -> Self {
                let millis = u64::try_from(at.0).unwrap_or(0);
                let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
                Self(Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, nanos)))
            }

            /// A fresh version 4 id: 122 random bits.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// A host, for as long as it is known; given at enrollment.
    HostId
}
id! {
    /// One numbering of a host's records. A new one starts only where the old can't be continued.
    StreamId
}
id! {
    /// One run of an agent process; random at each start.
    InstanceId
}
id! {
    /// One boot of a host: `/proc/sys/kernel/random/boot_id`.
    BootId
}
id! {
    /// One command from the collector to an agent.
    CommandId
}
id! {
    /// One collector process.
    CollectorId
}
id! {
    /// What changed a fleet: runs of tools that belong together.
    ChangeId
}
id! {
    /// One run of a tool that changes hosts.
    RunId
}
id! {
    /// Something of a host that is to be backed up.
    VolumeId
}
id! {
    /// What a volume was at one time.
    SnapshotId
}
id! {
    /// One attempt to make a snapshot of a volume.
    BackupRunId
}
id! {
    /// One rehearsal of restoring a volume.
    DrillId
}
