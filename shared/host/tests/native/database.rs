//! The pool: which connection a statement goes to, and what is said when there is none.

use super::postgres::{Reply, Server};
use super::{pool, refusing};
use astra_host::native::Pool;
use astra_store::{Database as _, StoreError};

const STATEMENT: &str = astra_store::tenant_statement!("any");

/// The number of the connection that answers.
async fn ask(pool: &Pool) -> Result<String, StoreError> {
    pool.query(STATEMENT, &["acme", "{}"]).await
}

#[tokio::test]
async fn a_connection_is_kept() {
    let server = Server::start().await;
    let pool = pool(server.address);
    assert_eq!(ask(&pool).await.as_deref(), Ok("1"));
    assert_eq!(ask(&pool).await.as_deref(), Ok("1"));
    let (one, two) = tokio::join!(ask(&pool), ask(&pool));
    assert_eq!([one.unwrap(), two.unwrap()], ["1", "2"]);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_within_the_call() {
    let server = Server::start().await;
    let pool = pool(server.address);
    assert_eq!(ask(&pool).await.as_deref(), Ok("1"));
    server.will([Reply::Hangup]);
    assert_eq!(ask(&pool).await.as_deref(), Ok("2"));
    assert_eq!(ask(&pool).await.as_deref(), Ok("2"));
}

#[tokio::test]
async fn a_new_connection_that_breaks_ends_the_call() {
    let server = Server::start().await;
    let pool = pool(server.address);
    server.will([Reply::Hangup]);
    assert_eq!(ask(&pool).await, Err(StoreError::Unreachable));
    assert_eq!(ask(&pool).await.as_deref(), Ok("2"));
}

#[tokio::test]
async fn a_refused_statement_leaves_the_connection_whole() {
    let server = Server::start().await;
    let pool = pool(server.address);
    server.will([Reply::Error("40001"), Reply::Error("22023")]);
    let error = ask(&pool).await.unwrap_err();
    assert!(error == StoreError::Fault("40001".into()) && error.is_passing());
    assert_eq!(ask(&pool).await, Err(StoreError::Fault("22023".into())));
    assert_eq!(ask(&pool).await.as_deref(), Ok("1"));
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_takes_its_connection_along() {
    let server = Server::start().await;
    let pool = pool(server.address);
    server.will([Reply::Silence]);
    tokio::select! {
        answer = ask(&pool) => panic!("{answer:?}"),
        () = server.silent.notified() => {}
    }
    assert_eq!(ask(&pool).await.as_deref(), Ok("2"));
}

#[tokio::test]
async fn a_statement_without_an_answer_is_given_up() {
    let server = Server::start().await;
    let pool = pool(server.address);
    server.will([Reply::Silence]);
    // From here on time passes at once.
    let pause = async {
        server.silent.notified().await;
        tokio::time::pause();
    };
    let (answer, ()) = tokio::join!(ask(&pool), pause);
    assert_eq!(answer, Err(StoreError::Unreachable));
    tokio::time::resume();
    assert_eq!(ask(&pool).await.as_deref(), Ok("2"));
}

#[tokio::test]
async fn who_does_not_listen_is_unreachable() {
    let (_kept, address) = refusing();
    assert_eq!(ask(&pool(address)).await, Err(StoreError::Unreachable));
}
