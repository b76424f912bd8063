//! The documentation is of these routes: each one described, nothing else described.

use provision::routes::{ROUTES, document};
use std::collections::BTreeSet;

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = serde_json::to_value(document()).expect("the document serialises");
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, item)| item.as_object().expect("a path").keys().map(move |method| (method.to_uppercase(), path.clone())))
        .collect();
    let routed: BTreeSet<_> = ROUTES.iter().map(|(method, pattern)| ((*method).to_owned(), (*pattern).to_owned())).collect();
    assert_eq!(described, routed);
}
