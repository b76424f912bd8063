//! Usage for Stripe's meter, over HTTP: what was charged is there, once.

use astra_tests::workspace::roomy;
use astra_tests::{Api, Db, Stripe, Workspace, environment, stripe, template, wait};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn what_was_charged_is_at_stripe_once() {
    let there = Arc::new(Mutex::new(Stripe::new("sk_test_suite", "astra_usage")));
    let _serving = stripe::serve(Arc::clone(&there), &environment::stripe()).await;
    let (ws, operator, db) = (Workspace::with(&roomy(), &[template::local("assistant")]).await, Api::operator(), Db::connect().await);
    let customer = format!("cus_{}", ws.id.replace('-', "_"));
    there.lock().unwrap().customers.insert(customer.clone());
    let _ = operator.put(&format!("/billing/stripe/customers/{}", ws.id), &json!({ "customerId": customer })).await.expect(204);
    for round in 1..=2 {
        for _ in 0..3 {
            ws.turn(&"several words ".repeat(200)).await.ok(200);
        }
        let charged = "SELECT floor(sum(charge_usd) * 1000000) FROM ledger WHERE workspace_id = $1";
        let charged = db.number(charged, &[&ws.id]).await;
        assert!(charged > 0);
        wait::until("Stripe has it", Duration::from_secs(30), async || {
            let reply = operator.post("/billing/jobs/push-usage/run", &json!(null)).await;
            assert!([200, 409].contains(&reply.status), "{reply:?}");
            let total = there.lock().unwrap().total(&customer);
            if total == charged {
                Ok(())
            } else {
                Err(format!("{total} of {charged} in round {round}: {:?}", there.lock().unwrap().refused))
            }
        })
        .await;
    }
    let identifiers: Vec<_> =
        there.lock().unwrap().events.iter().filter(|event| event.customer == customer).map(|event| event.identifier.clone()).collect();
    assert!(identifiers.iter().all(|identifier| identifier.starts_with(&format!("astra_{}_", ws.id))), "{identifiers:?}");
}
