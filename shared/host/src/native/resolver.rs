//! What a name stands for, for calls of addresses that somebody names: all of it public, or the name is nobody's.
//!
//! The connection is made to the addresses that were checked here, so a name that says something else a moment later (DNS rebinding) gains nothing. A name that stands for one
//! internal address among public ones is refused whole: nobody honest has such a name. Addresses written as numbers never come here: [`crate::guard::Guard::check`] has judged them.

use crate::guard::{Guard, is_public};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::Arc;

/// A name stands for something inside, or for nothing.
#[derive(Debug, thiserror::Error)]
#[error("the name stands for no public address")]
struct NotPublic;

/// Resolves by the system, and checks.
pub(super) struct Resolver(Arc<Guard>);

impl Resolver {
    pub(super) fn new(guard: Guard) -> Arc<Self> {
        Arc::new(Self(Arc::new(guard)))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let addresses: Addrs = Box::new(checked(&guard, name.as_str(), found).ok_or(NotPublic)?.into_iter());
            Ok(addresses)
        })
    }
}

fn checked(guard: &Guard, name: &str, found: Vec<SocketAddr>) -> Option<Vec<SocketAddr>> {
    let may = guard.is_exempt(name) || (!found.is_empty() && found.iter().all(|address| is_public(address.ip())));
    may.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_internal_address_is_enough_to_refuse_a_name() {
        let resolve = |guard: &Guard, addresses: &[&str]| {
            checked(guard, "hooks.example.com", addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect())
        };
        let guard = Guard::default();
        assert_eq!(resolve(&guard, &["8.8.8.8", "2606:4700::1"]).map(|all| all.len()), Some(2));
        for inside in [&["127.0.0.1"][..], &["8.8.8.8", "10.0.0.1"], &["::ffff:192.168.0.1", "8.8.8.8"], &["fd00::1"], &[]] {
            assert_eq!(resolve(&guard, inside), None, "{inside:?}");
        }
        let exempt = Guard::read(|name| (name == "OUTGOING_INTERNAL").then(|| "hooks.example.com".to_owned()));
        assert!(resolve(&exempt, &["127.0.0.1"]).is_some());
    }

    #[tokio::test]
    async fn a_name_that_stands_for_something_inside_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let client = |guard| super::super::http_client::guarded(astra_tls::client(None).unwrap(), guard).unwrap();
        let refused = client(Guard::default()).get(&url).send().await.unwrap_err();
        assert!(refused.is_connect(), "{refused:?}");
        let nobody = futures_util::FutureExt::now_or_never(listener.accept());
        assert!(nobody.is_none(), "nothing came here");
        let exempt = Guard::read(|name| (name == "OUTGOING_INTERNAL").then(|| "localhost".to_owned()));
        let ask = client(exempt).get(&url);
        let asking = tokio::spawn(async move { drop(ask.send().await) });
        listener.accept().await.unwrap();
        asking.abort();
    }
}
