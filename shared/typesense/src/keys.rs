//! Names and keys that bind a search.
//!
//! Typesense compares strings as words, also where a filter says "exactly": what is neither letter nor digit is dropped and case is ignored, so that `acme-1` is `acme1` and `Anna` is
//! `anna` (typesense/typesense#1930), and only the first 100 characters count (#2548). Workspaces and people are therefore known there by digests, of which nothing is dropped.

use astra_kernel::WorkspaceId;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The owner of what is the whole workspace's: no digest, so nobody's name.
pub const EVERYBODY: &str = "everybody";

fn digest(of: &str, text: &str) -> String {
    // 128 bits: no two alike, and no more to keep than a UUID.
    hex::encode(Sha256::new().chain_update(of).chain_update([0]).chain_update(text).finalize().get(..16).unwrap_or_default())
}

/// A workspace's name in the index: 32 hexadecimal digits.
pub fn workspace_name(workspace: &WorkspaceId) -> String {
    digest("workspace", workspace.as_str())
}

/// In the index, whose own something is: 32 hexadecimal digits, or [`EVERYBODY`].
pub fn owner_name(user: Option<&str>) -> String {
    user.map_or_else(|| EVERYBODY.to_owned(), |user| digest("user", user))
}

/// The text of the parameters of a search by somebody of a workspace: what they may find is the workspace's and their own.
pub fn bound_to(workspace: &WorkspaceId, subject: &str) -> String {
    // No escapes are needed: digits, letters and these signs.
    format!(r#"{{"filter_by":"workspace:={} && owner:=[{EVERYBODY},{}]"}}"#, workspace_name(workspace), owner_name(Some(subject)))
}

/// A scoped key: parameters that a search with it cannot do without, signed with a search-only key
/// (<https://typesense.org/docs/30.0/api/api-keys.html#generate-scoped-search-key>): base64 of base64(HMAC-SHA256 of the parameters) with the key's first four characters and the parameters.
///
/// The parameters are signed as they are: other blanks in the JSON make another key, which is as good.
pub fn scoped_key(search_key: &str, parameters: &str) -> String {
    // HMAC takes keys of any length.
    let signed = Hmac::<Sha256>::new_from_slice(search_key.as_bytes()).map(|mac| mac.chain_update(parameters).finalize().into_bytes());
    let digest = signed.map(|bytes| BASE64_STANDARD.encode(bytes)).unwrap_or_default();
    let prefix: String = search_key.chars().take(4).collect();
    BASE64_STANDARD.encode(format!("{digest}{prefix}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn workspace(id: &str) -> WorkspaceId {
        id.to_owned().try_into().unwrap()
    }

    #[test]
    fn it_is_the_key_of_typesenses_documentation() {
        // From the API reference of scoped search keys.
        let key = scoped_key("RN23GFr1s6jQ9kgSNg2O7fYcAUXU7127", r#"{"filter_by":"company_id:124","expires_at":1906054106}"#);
        assert_eq!(
            key,
            "OW9DYWZGS1Q1RGdSbmo0S1QrOWxhbk9PL2kxbTU1eXA3bCthdmE5eXJKRT1STjIzeyJmaWx0ZXJfYnkiOiJjb21wYW55X2lkOjEyNCIsImV4cGlyZXNfYXQiOjE5MDYwNTQxMDZ9"
        );
    }

    #[test]
    fn what_typesense_takes_for_the_same_has_other_names() {
        assert_ne!(workspace_name(&workspace("a-b")), workspace_name(&workspace("ab")));
        assert_ne!(owner_name(Some("Anna")), owner_name(Some("anna")));
        assert_ne!(owner_name(Some("anna@x.org")), owner_name(Some("anna@xorg")));
        assert_ne!(owner_name(Some(EVERYBODY)), owner_name(None));
        let long = "a".repeat(100);
        assert_ne!(owner_name(Some(&format!("{long}1"))), owner_name(Some(&format!("{long}2"))));
    }

    proptest! {
        #[test]
        fn nobodys_name_changes_the_form_of_a_filter(user in "\\PC{0,200}") {
            let bound = bound_to(&workspace("acme"), &user);
            let parameters: serde_json::Value = serde_json::from_str(&bound).unwrap();
            let filter = parameters["filter_by"].as_str().unwrap();
            let owner = filter.rsplit(',').next().unwrap().trim_end_matches(']');
            prop_assert_eq!(filter, format!("workspace:={} && owner:=[everybody,{owner}]", workspace_name(&workspace("acme"))));
            prop_assert!(owner.len() == 32 && owner.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        }
    }
}
