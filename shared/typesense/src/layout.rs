//! Where a workspace's documents are: in a collection of its own, or in one of a few that workspaces share.
//!
//! A workspace is searched by its alias, whatever the layout. A collection's name says its layout and the version of its schema: another one of either is another collection, into which the
//! documents are brought before the alias is switched to it.

use astra_kernel::WorkspaceId;
use sha2::{Digest as _, Sha256};
use std::str::FromStr;

/// The version of [`crate::requests::create_collection`]'s fields. Who changes them counts it up.
const SCHEMA: u32 = 1;

/// The most collections that are shared.
const MOST: u32 = 1000;

/// One collection for each workspace, or so many for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each workspace has its own.
    PerWorkspace,
    /// So many are shared by all.
    Shared(u32),
}

/// Not a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is per-workspace, or shared:N with N from 1 to 1000")]
pub struct NoLayout;

impl FromStr for Layout {
    type Err = NoLayout;

    fn from_str(text: &str) -> Result<Self, NoLayout> {
        match text.split_once(':') {
            None if text == "per-workspace" => Ok(Self::PerWorkspace),
            Some(("shared", text)) => {
                let count = text.parse().ok().filter(|count: &u32| (1..=MOST).contains(count) && count.to_string() == text);
                count.map(Self::Shared).ok_or(NoLayout)
            }
            _ => Err(NoLayout),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PerWorkspace => f.write_str("per-workspace"),
            Self::Shared(count) => write!(f, "shared:{count}"),
        }
    }
}

/// The name by which a workspace is searched.
pub fn alias(prefix: &str, workspace: &WorkspaceId) -> String {
    format!("{prefix}_{workspace}")
}

/// The collection of a workspace in a layout.
pub fn collection(prefix: &str, layout: Layout, workspace: &WorkspaceId) -> String {
    match layout {
        Layout::PerWorkspace => format!("{prefix}_own_{workspace}_v{SCHEMA}"),
        Layout::Shared(count) => {
            let digest = Sha256::digest(workspace.as_str());
            let number = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) % count;
            format!("{prefix}_shared_{count}_{number}_v{SCHEMA}")
        }
    }
}

/// Whether a collection is a workspace's own, whatever prefix and schema it was made with: no id has `_` in it.
pub fn is_own(collection: &str, workspace: &WorkspaceId) -> bool {
    let before_schema = collection.rsplit_once("_v").map_or("", |(before, _)| before);
    before_schema.ends_with(&format!("_own_{workspace}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn workspace(id: &str) -> WorkspaceId {
        id.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_layout_reads_as_it_is_written_and_nothing_else_does() {
        for good in ["per-workspace", "shared:1", "shared:1000"] {
            assert_eq!(good.parse::<Layout>().map(|layout| layout.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "own",
            "shared",
            "shared:",
            "shared:0",
            "shared:1001",
            "shared:-1",
            "shared:+1",
            "shared:007",
            "shared:x",
            "per-workspace:2",
            "shared:2:3",
        ] {
            assert_eq!(bad.parse::<Layout>(), Err(NoLayout), "{bad}");
        }
    }

    #[test]
    fn names_say_where_and_by_which_schema() {
        let acme = workspace("acme-1");
        assert_eq!(alias("astra", &acme), "astra_acme-1");
        assert_eq!(collection("astra", Layout::PerWorkspace, &acme), "astra_own_acme-1_v1");
        assert_eq!(collection("astra", Layout::Shared(1), &acme), "astra_shared_1_0_v1");
        assert!(is_own("other_own_acme-1_v7", &acme) && !is_own("astra_own_acme-1_v1", &workspace("1")));
        assert!(!is_own("astra_shared_1_0_v1", &acme) && !is_own("astra_acme-1", &acme));
    }

    proptest! {
        #[test]
        fn no_two_workspaces_have_a_name_in_common(a in "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", b in "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", count in 1_u32..1000) {
            let (one, other) = (workspace(&a), workspace(&b));
            let own = |ws: &WorkspaceId| collection("p", Layout::PerWorkspace, ws);
            prop_assert_eq!(a == b, own(&one) == own(&other));
            prop_assert_eq!(a == b, alias("p", &one) == alias("p", &other));
            prop_assert_eq!(is_own(&own(&one), &other), a == b);
            // Nobody's alias is somebody's collection: the alias has one `_`, collections have more.
            prop_assert_ne!(alias("p", &one), own(&other));
            let shared = collection("p", Layout::Shared(count), &one);
            prop_assert!(!is_own(&shared, &one) && !is_own(&shared, &other));
        }
    }
}
