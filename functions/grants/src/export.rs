//! Entries as CSV.

use astra_host::{Failure, csv};
use astra_kernel::audit::{Entry, Word};

const HEADER: [&str; 13] =
    ["workspaceId", "seq", "at", "sub", "operator", "jti", "request", "action", "target", "outcome", "detail", "prevHash", "hash"];

/// A header line and a line for each entry.
///
/// # Errors
/// None that can come: it is written into memory.
pub(crate) fn as_csv(entries: &[Entry]) -> Result<Vec<u8>, Failure> {
    csv::table(HEADER, entries.iter().map(record))
}

fn record(entry: &Entry) -> [String; 13] {
    let Entry { workspace_id, seq, at, actor, action, target, outcome, detail, prev_hash, hash } = entry;
    let of_actor = |name: &str| match actor.as_ref().and_then(|actor| actor.get(name)) {
        Some(Word::Text(text)) => text.clone(),
        Some(Word::Flag(flag)) => flag.to_string(),
        Some(Word::Nothing(())) | None => String::new(),
    };
    let detail = if detail.is_empty() { String::new() } else { serde_json::to_string(detail).unwrap_or_default() };
    [
        workspace_id.to_string(),
        seq.to_string(),
        at.to_string(),
        of_actor("sub"),
        of_actor("operator"),
        of_actor("jti"),
        of_actor("request"),
        action.clone(),
        target.clone(),
        outcome.clone(),
        detail,
        prev_hash.clone(),
        hash.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::Timestamp;
    use std::collections::BTreeMap;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_is_no_formula() {
        let entry = |sub: &str, target: &str| Entry {
            workspace_id: "acme".to_owned().try_into().unwrap(),
            seq: 7,
            at: Timestamp(1_795_521_600_000),
            actor: Some(BTreeMap::from([("sub".to_owned(), Word::Text(sub.to_owned())), ("operator".to_owned(), Word::Flag(true))])),
            action: "member.add".into(),
            target: target.into(),
            outcome: "allowed".into(),
            detail: BTreeMap::from([("role".to_owned(), "a,b".to_owned())]),
            prev_hash: "00".into(),
            hash: "ff".into(),
        };
        let text = String::from_utf8(as_csv(&[entry("=1+1", "a \"b\", c"), entry("ann", "@sum")]).unwrap()).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines[0], "workspaceId,seq,at,sub,operator,jti,request,action,target,outcome,detail,prevHash,hash");
        assert_eq!(lines[1], r#"acme,7,2026-11-24T12:00:00.000Z,'=1+1,true,,,member.add,"a ""b"", c",allowed,"{""role"":""a,b""}",00,ff"#);
        assert!(lines[2].contains(",ann,true,") && lines[2].contains(",'@sum,"), "{text}");
        assert_eq!(lines[3], "", "the last line ends, too");
    }
}
