//! A turn that another workspace asks for and this one pays: what the counter does with it, and that a forged one does nothing.

use crate::world::{LEASE, START, World, begin, record, turn, usage};
use astra_kernel::{GrantId, Timestamp, WorkspaceId};
use astra_quota::words::{Begin, Extend, Record, Stop, TurnStatus};
use astra_quota::{Answer, Ask, Prior, Visit};
use quota::desk::Desk;
use quota::testing::Kept;
use serde_json::{Value, json};

const LIMIT: i64 = 10_000_000;

/// A, which pays, B, whose member asks, and the grant between them.
struct Two {
    a: World,
    b: World,
    grant: GrantId,
}

impl Two {
    async fn new() -> Self {
        Self::with(2, 0).await
    }

    async fn with(connections: usize, of_b: i64) -> Self {
        let a = World::new(connections, json!({ "maxCostNanoUsdPerMonth": LIMIT })).await;
        let b = a.beside(json!({ "maxCostNanoUsdPerMonth": of_b })).await;
        let grant = GrantId(uuid::Uuid::new_v4());
        let two = Self { a, b, grant };
        two.give(grant, &two.b.workspace, "granter").await;
        two
    }

    async fn give(&self, grant: GrantId, to: &WorkspaceId, payer: &str) {
        let params = [self.a.workspace.as_str(), &grant.to_string(), to.as_str(), payer];
        let given = "INSERT INTO grants (workspace_id, id, receiving_workspace_id, agent_id, readonly, payer, allow, created_by, created_at)
                     VALUES ($1, $2::text::uuid, $3, 'a', true, $4, '{}', 'o', CASE $4 WHEN 'granter' THEN '2026-01-01Z'::timestamptz ELSE '2026-01-02Z' END)";
        let received = "INSERT INTO received_grants (workspace_id, id, granting_workspace_id, agent_id, readonly, payer, allow, created_at)
                        VALUES ($3, $2::text::uuid, $1, 'a', true, $4, '{}', CASE $4 WHEN 'granter' THEN '2026-01-01Z'::timestamptz ELSE '2026-01-02Z' END)";
        self.a.admin_run(given, &params).await;
        self.a.admin_run(received, &params).await;
    }

    async fn revoke(&self) {
        let params = [self.grant.to_string()];
        for table in ["grants", "received_grants"] {
            self.a.admin_run(&format!("UPDATE {table} SET revoked_at = now() WHERE id = $1::text::uuid"), &[&params[0]]).await;
        }
    }

    /// What B's counter says of a turn: whom to ask.
    async fn referral(&self, n: u128, key: Option<&str>) -> Value {
        self.referral_in(begin(n), key).await
    }

    async fn referral_in(&self, begin: Begin, key: Option<&str>) -> Value {
        let agent_id = format!("{}/a", self.a.workspace).try_into().unwrap();
        let asked = Begin { idempotency_key: key.map(str::to_owned), agent_id, ..begin };
        match self.b.begin(&asked, START).await {
            Answer::Denied(document) => serde_json::from_str(document.get()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The turn as A's counter is asked for it, by what B's said.
    async fn guests(&self, n: u128, key: Option<&str>) -> Begin {
        self.guests_in(begin(n), key).await
    }

    async fn guests_in(&self, begin: Begin, key: Option<&str>) -> Begin {
        let referral = self.referral_in(begin.clone(), key).await;
        assert_eq!((&referral["outcome"], &referral["granter"]), (&json!("payer"), &json!(self.a.workspace)), "{referral}");
        let visit = Visit {
            workspace: self.b.workspace.clone(),
            grant_id: self.grant,
            ticket: referral["ticket"].as_str().unwrap().to_owned(),
            new_session: referral["newSession"] == true,
            prior: Prior::default(),
        };
        let new_session_id = serde_json::from_value(referral["sessionId"].clone()).unwrap();
        let key = key.map(|key| visit.guest().key(key));
        let agent_id = referral["countedAs"].as_str().unwrap().to_owned().try_into().unwrap();
        Begin { agent_id, idempotency_key: key, session_id: None, new_session_id, guest: Some(visit), ..begin }
    }

    fn ended(of: &Begin, cost: i64, now: Timestamp) -> Record {
        Record { guest: of.guest.as_ref().map(Visit::guest), ..record(of, START, usage(10, 20), cost, now) }
    }

    /// What B has: turns, messages, tokens and cost of them.
    async fn of_b(&self) -> (i64, i64, i64) {
        let sums = "SELECT COALESCE(sum(input_tokens + output_tokens + cost_usd * 1000000000), 0) FROM turns WHERE workspace_id = $1";
        let count = async |table: &str| self.b.number(&format!("SELECT count(*) FROM {table} WHERE workspace_id = $1")).await;
        (count("turns").await, count("messages").await, self.b.number(sums).await)
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_guests_turn_is_held_and_paid_here_and_its_words_are_there() {
    let two = Two::new().await;
    let guests = two.guests(1, Some("k")).await;
    let begun = two.a.begun(&guests, START).await;
    assert_eq!(two.a.used(START).await, (0, i64::try_from(begun.input_bound).unwrap() * 150 + 64 * 600));
    assert_eq!(two.of_b().await, (0, 0, 0));
    // Under its key at B it runs, for whoever asks with it; A's own key of that name is another.
    let again = two.guests(2, Some("k")).await;
    assert!(matches!(two.a.begin(&again, START).await, Answer::Running(running) if running == turn(1)));
    two.a.begun(&Begin { idempotency_key: Some("k".into()), ..begin(3) }, START).await;
    for _ in 0..2 {
        two.a.finish(Two::ended(&guests, 5_000, START), START).await;
        assert_eq!(two.of_b().await, (1, 2, 0));
    }
    assert_eq!(two.a.number("SELECT sum(cost_usd) * 1000000000 FROM ledger WHERE workspace_id = $1").await, 5_000);
    assert_eq!(two.b.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, 0);
    let row = "SELECT concat_ws(' ', user_id = '%', agent_id = 'a@%', request_hash = '', answer IS NULL, idempotency_key IS NULL) FROM turns WHERE workspace_id = $1";
    assert_eq!(
        two.a.text(&row.replace('%', two.b.workspace.as_str())).await,
        "t t t t t",
        "nothing of what was said, and of who it was only where from"
    );
    let row = "SELECT concat_ws(' ', user_id, agent_id = '%/a', request_hash, answer - 'turnId', idempotency_key) FROM turns WHERE workspace_id = $1";
    assert_eq!(two.b.text(&row.replace('%', two.a.workspace.as_str())).await, "u t h {} k", "and no figure of what is left");
    // What read before that, and comes to its hold after: the key is taken, under the lock.
    assert!(matches!(two.a.begin(&again, START).await, Answer::Denied(why) if why.get().contains("key_taken")));
    assert_eq!(two.referral(4, Some("k")).await["outcome"], "replay");
    two.a.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_guests_turn_that_dies_is_ended_by_the_sweep_and_corrected_once() {
    let two = Two::new().await;
    let guests = two.guests(1, Some("k")).await;
    let (n, dead) = (1, START.plus_millis(LEASE));
    two.a.begun(&guests, START).await;
    assert!(matches!(two.a.extend(n, 1, usage(5, 7), 0, START).await, Answer::Extended(_)));
    assert_eq!(two.a.counter().expire(dead.plus_millis(LEASE)).await.unwrap(), 1);
    assert_eq!(two.of_b().await, (1, 1, 0), "what was asked is kept, and costs nothing there");
    assert_eq!(two.a.used(dead.plus_millis(LEASE)).await, (5 * 150 + 7 * 600, 0));
    let late = two.a.finish(Two::ended(&guests, 20_000, dead), dead.plus_millis(LEASE)).await;
    assert!(late.saved);
    assert_eq!((two.a.used(dead.plus_millis(LEASE)).await, two.of_b().await), ((20_000, 0), (1, 2, 0)));
    assert_eq!(two.b.text("SELECT status FROM turns WHERE workspace_id = $1").await, "completed");
    assert_eq!(two.a.number("SELECT count(grant_id) FROM ledger WHERE workspace_id = $1").await, 2, "the correction names it too");
    assert_eq!(two.a.text("SELECT string_agg(status, ' ') FROM turns WHERE workspace_id = $1").await, "completed");
    // An older message of it changes nothing any more.
    let expired = Record { status: TurnStatus::Expired, ..Two::ended(&guests, 1, dead) };
    two.a.finish(expired, dead.plus_millis(LEASE)).await;
    assert_eq!((two.a.used(dead.plus_millis(LEASE)).await, two.of_b().await), ((20_000, 0), (1, 2, 0)));
    two.a.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_guests_turn_is_stopped_by_its_workspace_alone() {
    let two = Two::new().await;
    let guests = two.guests(1, None).await;
    two.a.begun(&guests, START).await;
    let stop = async |subject: Option<&str>, guest: Option<&WorkspaceId>| {
        let stop = Stop { turn_id: turn(1), subject: subject.map(str::to_owned), guest: guest.cloned() };
        matches!(two.a.counter().ask(&Ask::Stop(stop), START).await, Answer::Stopping)
    };
    let (a, b) = (&two.a.workspace, &two.b.workspace);
    assert!(!stop(None, None).await && !stop(Some("u"), None).await && !stop(None, Some(a)).await && !stop(Some("v"), Some(b)).await);
    assert!(matches!(two.a.extend(1, 1, usage(5, 5), 0, START).await, Answer::Extended(e) if !e.stop));
    assert!(stop(Some("u"), Some(b)).await);
    assert!(matches!(two.a.extend(1, 2, usage(5, 5), 0, START).await, Answer::Extended(e) if e.stop));
}

type Change = Box<dyn Fn(&mut Begin, &mut Visit)>;

/// Each is refused before anything is held, and enters nothing at B's where a record comes all the same.
#[tokio::test]
#[ignore = "needs a database"]
async fn a_forged_guest_does_nothing() {
    let two = Two::new().await;
    let c = two.a.beside(json!({})).await;
    let (to_c, by_receiver) = (GrantId(uuid::Uuid::new_v4()), GrantId(uuid::Uuid::new_v4()));
    two.give(to_c, &c.workspace, "granter").await;
    two.give(by_receiver, &two.b.workspace, "receiver").await;
    let (b, c_id) = (two.b.workspace.clone(), c.workspace.clone());
    let others = two.guests(2, Some("k")).await.guest.unwrap().ticket;
    let (c_1, c_2, b_1, b_2) = (c_id.clone(), c_id.clone(), b.clone(), b.clone());
    let all: Vec<(&str, Change)> = vec![
        ("a grant that is not there", Box::new(|_, v| v.grant_id = GrantId(uuid::Uuid::new_v4()))),
        ("another's grant", Box::new(move |_, v| v.grant_id = to_c)),
        ("a grant that the receiver pays for", Box::new(move |_, v| v.grant_id = by_receiver)),
        ("another receiver", Box::new(move |_, v| v.workspace = c_1.clone())),
        ("another receiver's grant", Box::new(move |_, v| (v.workspace, v.grant_id) = (c_2.clone(), to_c))),
        ("no ticket", Box::new(|_, v| v.ticket = String::new())),
        ("another turn's ticket", Box::new(move |_, v| v.ticket.clone_from(&others))),
        ("a ticket of no key", Box::new(|_, v| v.ticket = v.ticket.replacen(' ', "x ", 1))),
        ("somebody else", Box::new(|b, _| b.subject = "somebody else".into())),
        ("another request", Box::new(|b, _| b.request_hash = "other".into())),
        ("another conversation", Box::new(|b, _| b.new_session_id = begin(77).new_session_id)),
        ("a conversation that is not new", Box::new(|_, v| v.new_session = false)),
        ("another key", Box::new(move |b, _| b.idempotency_key = Some(format!("{b_1}\nother")))),
        ("another agent", Box::new(move |b, _| b.agent_id = format!("b@{b_2}").try_into().unwrap())),
        ("A's own name for it", Box::new(|b, _| b.agent_id = "a".to_owned().try_into().unwrap())),
    ];
    for (n, (what, change)) in (10..).zip(all) {
        let mut forged = two.guests(n, Some(&format!("k{n}"))).await;
        let mut visit = forged.guest.clone().unwrap();
        change(&mut forged, &mut visit);
        let new_session = visit.new_session;
        forged.guest = Some(visit);
        match two.a.begin(&forged, START).await {
            Answer::Denied(why) => assert!(why.get().contains("agent_denied"), "{what}: {}", why.get()),
            other => panic!("{what}: {other:?}"),
        }
        // Which agent it was is said by the grant, whatever the record says.
        if !what.contains("agent") && !what.starts_with("A's") {
            two.a.finish(Record { new_session, ..Two::ended(&forged, 7, START) }, START).await;
        }
        for world in [&two.b, &c] {
            let rows =
                "SELECT (SELECT count(*) FROM turns WHERE workspace_id = $1) + (SELECT count(*) FROM sessions WHERE workspace_id = $1)";
            assert_eq!(world.number(rows).await, 0, "{what}");
        }
    }
    assert_eq!(two.a.used(START).await.1, 0, "nothing is held");
    // The good one works, until the grant is revoked: then it begins no more, and what had begun is still entered.
    let (good, late) = (two.guests(3, Some("k")).await, two.guests(4, None).await);
    two.a.begun(&good, START).await;
    two.revoke().await;
    assert!(matches!(two.a.begin(&late, START).await, Answer::Denied(why) if why.get().contains("agent_denied")));
    two.a.finish(Two::ended(&good, 7, START), START).await;
    assert_eq!(two.of_b().await, (1, 2, 0));
}

/// Between what a turn has read and its hold.
#[tokio::test]
#[ignore = "needs a database"]
async fn a_grant_that_goes_or_a_key_that_is_used_meanwhile_is_seen_under_the_lock() {
    let two = Two::new().await;
    let (guests, again) = (two.guests(1, Some("k")).await, two.guests(2, Some("k")).await);
    two.a.begun(&guests, START).await;
    let held =
        two.a.text("SELECT jsonb_build_object('hold', hold, 'draft', draft, 'tokens', tokens) FROM holds WHERE workspace_id = $1").await;
    let mut take: Value = serde_json::from_str(&held).unwrap();
    take["now"] = json!(START);
    let mut of = |begin: &Begin| {
        take["turnId"] = json!(begin.turn_id);
        take["draft"]["record"]["turnId"] = json!(begin.turn_id);
        take["draft"]["record"]["sessionId"] = json!(begin.new_session_id);
        take["draft"]["record"]["guest"] = json!(begin.guest.as_ref().map(Visit::guest));
        take.to_string()
    };
    let hold_take = async |take: String| two.a.pool_text(astra_store::tenant_statement!("hold_take"), &take).await;
    let other = two.guests(3, None).await;
    two.a.finish(Two::ended(&guests, 5_000, START), START).await;
    assert!(hold_take(of(&again)).await.contains("again"), "the key is used by now");
    let unkeyed = |take: String| take.replace(&format!("\"{}\\nk\"", two.b.workspace), "null").replace("[null,\"h\"]", "null");
    let take = unkeyed(of(&other));
    assert!(hold_take(take.clone()).await.contains("taken"), "{take}");
    two.a.counter().ask(&Ask::Forget, START).await;
    two.revoke().await;
    assert!(hold_take(take).await.contains("again"), "the grant is gone by now");
}

/// In one conversation of B's: turns that A pays and turns that B pays end at once. Each has a lock of its own had when it comes to the conversation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a database"]
async fn turns_that_end_at_once_in_one_conversation_number_its_messages_without_gaps() {
    let two = Two::with(8, LIMIT).await;
    let first = begin(1);
    two.b.begun(&first, START).await;
    two.b.finish(record(&first, START, usage(10, 20), 5, START), START).await;
    let mut ends = Vec::new();
    for n in 2..22 {
        let goes_on = Begin { session_id: Some(first.new_session_id), ..begin(n) };
        let of = if n % 2 == 0 { two.guests_in(goes_on, None).await } else { goes_on };
        let payer = if n % 2 == 0 { &two.a } else { &two.b };
        payer.begun(&of, START).await;
        let ended = Record { session_id: Some(first.new_session_id), new_session: false, ..Two::ended(&of, 5, START) };
        ends.push(async move { payer.finish(ended, START).await });
    }
    assert!(futures_util::future::join_all(ends).await.iter().all(|finished| finished.saved));
    let wrong = "SELECT count(*) FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS n FROM messages WHERE workspace_id = $1) m WHERE m.seq <> m.n";
    assert_eq!((two.b.number(wrong).await, two.of_b().await.1), (0, 42));
    assert_eq!(two.b.number("SELECT count(*) FROM sessions WHERE workspace_id = $1").await, 1);
    for (world, entries) in [(&two.a, 10), (&two.b, 11)] {
        assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, entries);
        assert_eq!(world.used(START).await, (5 * entries, 0));
        world.check().await;
    }
}

/// The quota object on the same database.
#[tokio::test(flavor = "current_thread")]
#[ignore = "needs a database"]
async fn the_object_holds_and_pays_for_guests_alike() {
    let two = Two::new().await;
    let kept = Kept::default();
    let desk = Desk::open(two.a.workspace.clone(), two.a.pool.clone(), kept.clone());
    let begin = async |begin: &Begin| desk.answer(Ask::Begin(Box::new(begin.clone())), START).await;
    let (one, again, dies) = (two.guests(1, Some("k")).await, two.guests(2, Some("k")).await, two.guests(3, None).await);
    assert!(matches!(begin(&one).await, Answer::Begun(_)));
    assert!(matches!(begin(&again).await, Answer::Running(running) if running == turn(1)));
    let finished = desk.answer(Ask::Finish(Box::new(Two::ended(&one, 5_000, START))), START).await;
    assert!(matches!(finished, Answer::Finished(finished) if finished.saved));
    assert_eq!(two.of_b().await, (1, 2, 0));
    assert_eq!(two.b.text("SELECT answer - 'turnId' FROM turns WHERE workspace_id = $1").await, "{}", "no figure of what is left");
    assert!(matches!(begin(&again).await, Answer::Denied(why) if why.get().contains("key_taken")));
    // One that dies is ended by the alarm.
    assert!(matches!(begin(&dies).await, Answer::Begun(_)));
    let alive = Extend { turn_id: turn(3), sequence: 1, progress: usage(5, 7), input_bound: 0, output: 0, is_urgent: false };
    assert!(matches!(desk.answer(Ask::Extend(alive), START).await, Answer::Extended(_)));
    // An object that has died meanwhile goes on with what it had written down.
    let desk = Desk::open(two.a.workspace.clone(), two.a.pool.clone(), kept);
    let dead = START.plus_millis(2 * LEASE);
    desk.wake(dead).await;
    assert_eq!(two.of_b().await, (2, 3, 0));
    assert_eq!(two.a.number("SELECT sum(cost_usd) * 1000000000 FROM ledger WHERE workspace_id = $1").await, 5_000 + 5 * 150 + 7 * 600);
    // And is corrected by what comes after all.
    desk.answer(Ask::Finish(Box::new(Two::ended(&dies, 6_000, dead))), dead).await;
    assert_eq!(two.of_b().await, (2, 4, 0));
    assert_eq!(two.a.number("SELECT sum(cost_usd) * 1000000000 FROM ledger WHERE workspace_id = $1").await, 11_000);
    // A grant that is revoked begins nothing.
    let late = two.guests(4, None).await;
    two.revoke().await;
    assert!(matches!(desk.answer(Ask::Withdraw(late.agent_id.clone()), dead).await, Answer::Withdrawn));
    assert!(matches!(desk.answer(Ask::Begin(Box::new(late)), dead).await, Answer::Denied(_)));
}
