use super::*;
use astra_kernel::chain::{BEGINNING, Link as _};
use astra_kernel::{NanoUsd, receipt};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn jwks() -> String {
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "r1", "x": BASE64_URL_SAFE_NO_PAD.encode(pair().public_key()) }] }).to_string()
}

/// Entry n is charged 10 n, and began on day n of November.
fn chain(length: u64) -> Vec<Entry> {
    let mut before = BEGINNING.to_owned();
    let entry = |seq: u64| {
        let id = format!("00000000-0000-7000-8000-0000000000{seq:02}");
        let mut entry: Entry = serde_json::from_value(json!({
            "workspaceId": "acme", "id": id, "kind": "turn", "turnId": id, "corrects": null, "nth": 0, "grantId": null, "agentId": "assistant", "userHash": "aa", "sessionId": id,
            "provider": "local", "model": "echo-1", "priceVersion": 1, "markupBasisPoints": 0, "inputTokens": 5, "cachedInputTokens": 1, "outputTokens": 3, "reasoningTokens": 2, "embeddingTokens": 0,
            "costNanoUsd": 9 * seq, "chargeNanoUsd": 10 * seq, "source": "provider", "startedAt": format!("2026-11-{seq:02}T12:00:00.000000Z"), "reason": null, "madeBy": null, "seq": seq,
            "enteredAt": format!("2026-11-{seq:02}T12:00:01.000000Z"), "prevHash": before, "hash": "",
        }))
        .unwrap();
        entry.hash = entry.made_hash().unwrap();
        before.clone_from(&entry.hash);
        entry
    };
    (1..=length).map(entry).collect()
}

fn signed(entry: &Entry) -> String {
    let part = receipt::signed_part("r1", &entry.receipt().unwrap());
    receipt::compact(&part, pair().sign(part.as_bytes()).as_ref())
}

fn lines(entries: &[Entry]) -> String {
    entries.iter().map(signed).collect::<Vec<_>>().join("\n")
}

#[test]
fn receipts_are_read_from_pages_answers_and_lines() {
    let entries = chain(4);
    let said = check(&jwks(), None, &[lines(&entries)]).unwrap();
    assert!(
        said.contains("acme: receipts 1 to 4 ")
            && said.contains(
                "input tokens 20 (cached 4)\noutput tokens 12 (reasoning 8)\nembedding tokens 0\ncost 90 nano-dollars\ncharge 100 "
            ),
        "{said}"
    );
    let page = |entries: &[Entry]| {
        let data: Vec<_> = entries.iter().map(|entry| json!({ "seq": entry.seq, "receipt": signed(entry) })).collect();
        serde_json::to_string_pretty(&json!({ "data": data, "nextCursor": null })).unwrap()
    };
    let answer = json!({ "turnId": "x", "content": "hello", "receipt": signed(&entries[2]) }).to_string();
    // The last of them twice.
    assert_eq!(check(&jwks(), None, &[page(&entries[3..]), [page(&entries[..2]), answer].concat(), lines(&entries[3..])]), Ok(said));
    assert!(check(&jwks(), None, &[lines(&entries[1..])]).unwrap().contains("receipts 2 to 4"));
}

#[test]
fn each_byte_of_a_receipt_counts() {
    let receipt = signed(&chain(1)[0]);
    let keys = KeySet::parse(&jwks()).unwrap();
    assert!(entry(&receipt, &keys).is_ok());
    for at in 0..receipt.len() {
        for bit in 0..8 {
            let mut bytes = receipt.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                assert!(entry(&text, &keys).is_err(), "byte {at}, bit {bit}: {text}");
            }
        }
    }
    for length in 0..receipt.len() {
        assert!(entry(&receipt[..length], &keys).is_err(), "{length}");
    }
}

#[test]
fn what_is_missing_or_was_made_anew_is_named() {
    let entries = chain(4);
    let error = |entries: &[Entry]| check(&jwks(), None, &[lines(entries)]).unwrap_err();
    assert!(error(&[entries[0].clone(), entries[2].clone()]).contains("entry 2 is missing"));
    // By somebody who has the key.
    let mut changed = entries.clone();
    changed[1].charge_nano_usd = NanoUsd(1);
    assert!(error(&changed).contains("entry 2 is not as it was written"));
    changed[1].hash = changed[1].made_hash().unwrap();
    assert!(error(&changed).contains("entry 3 does not follow"));
    assert!(error(&[&entries[..], &changed[1..2]].concat()).contains("two entries 2"));
    let other = jwks().replace("r1", "r2");
    assert!(check(&other, None, &[lines(&entries)]).unwrap_err().contains("key r1, which is not among the keys"));
    for nothing in ["", "{}", "[]", r#"{"data":[{}]}"#] {
        assert!(check(&jwks(), None, &[nothing.to_owned()]).is_err(), "{nothing}");
    }
    assert!(check("{}", None, &[lines(&entries)]).unwrap_err().contains("--keys"));
}

#[test]
fn an_invoice_is_the_sum_of_what_it_covers() {
    let entries = chain(6);
    let verified = |invoice: serde_json::Value| check(&jwks(), Some(&invoice.to_string()), &[lines(&entries)]);
    let plain = |total: u64, last: u64| json!({ "workspaceId": "acme", "month": "2026-11", "totalChargeNanoUsd": total, "lastSeq": last, "number": "2026-1" });
    assert!(verified(plain(210, 6)).unwrap().contains("the invoice of 2026-11 is the sum"));
    assert!(verified(plain(150, 5)).is_ok(), "what came later is not in it");
    assert!(verified(plain(211, 6)).unwrap_err().contains("says 211 nano-dollars, and the receipts that it covers 210"));
    assert!(verified(plain(210, 7)).unwrap_err().contains("from 1 to 7"));
    // The month ended before entry 5 began, and entry 3 was there when the one before was made, which ended before entry 2 began.
    let mut month = plain(20 + 30 + 40, 6);
    month["endsAt"] = "2026-11-05T12:00:00.000Z".into();
    month["previousEndsAt"] = "2026-11-02T00:00:00Z".into();
    month["previousLastSeq"] = 3.into();
    month["firstSeq"] = 2.into();
    month["lastHash"] = entries[5].hash.clone().into();
    assert!(verified(month.clone()).unwrap().contains("3 entries"));
    month["lastHash"] = entries[4].hash.clone().into();
    assert!(verified(month.clone()).unwrap_err().contains("entry 6 is not the one that the invoice names"));
    let mut others = plain(210, 6);
    others["workspaceId"] = "other".into();
    assert!(verified(others).unwrap_err().contains("of other"));
    assert!(verified(json!({})).unwrap_err().contains("no invoice"));
}
