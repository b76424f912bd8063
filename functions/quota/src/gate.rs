//! A gate that many pass together, or one alone: records are added to the ledger together, it is read as a whole alone.
//!
//! Not a lock from a library: those that were tried wake their waiters through one another, which on the one thread of an object can go round
//! for ever. Here whoever leaves wakes all, and each looks for itself. Who wants to be alone shuts the gate first and then waits for those inside,
//! so they cannot be kept out by a stream of others.

use futures_channel::oneshot;
use std::cell::RefCell;

/// The gate.
#[derive(Debug, Default)]
pub(crate) struct Gate(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    inside: usize,
    waiting: Vec<oneshot::Sender<()>>,
}

/// Passed together with others.
#[derive(Debug)]
pub(crate) struct Together<'a>(&'a Gate);

/// Passed alone.
#[derive(Debug)]
pub(crate) struct Alone<'a>(&'a Gate);

impl Gate {
    /// Passes as soon as the gate is not shut.
    pub(crate) async fn together(&self) -> Together<'_> {
        while self.0.borrow().shut {
            self.change().await;
        }
        self.0.borrow_mut().inside += 1;
        Together(self)
    }

    /// Shuts the gate and passes when nobody is inside any more.
    pub(crate) async fn alone(&self) -> Alone<'_> {
        while self.0.borrow().shut {
            self.change().await;
        }
        self.0.borrow_mut().shut = true;
        // From here on dropping this future opens the gate again.
        let alone = Alone(self);
        while self.0.borrow().inside > 0 {
            self.change().await;
        }
        alone
    }

    async fn change(&self) {
        let (sender, receiver) = oneshot::channel();
        self.0.borrow_mut().waiting.push(sender);
        let _ = receiver.await;
    }

    fn leave(&self, leave: impl FnOnce(&mut State)) {
        let waiting = {
            let mut state = self.0.borrow_mut();
            leave(&mut state);
            std::mem::take(&mut state.waiting)
        };
        for waiter in waiting {
            let _ = waiter.send(());
        }
    }
}

impl Drop for Together<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| state.inside -= 1);
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| state.shut = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn many_pass_together_one_alone() {
        let gate = Gate::default();
        let first = gate.together().now_or_never();
        let second = gate.together().now_or_never();
        assert!(first.is_some() && second.is_some());
        let mut alone = Box::pin(gate.alone());
        assert!((&mut alone).now_or_never().is_none(), "somebody is inside");
        let mut late = Box::pin(gate.together());
        assert!((&mut late).now_or_never().is_none(), "the gate is shut");
        drop(first);
        assert!((&mut alone).now_or_never().is_none());
        drop(second);
        let alone = alone.now_or_never();
        assert!(alone.is_some() && (&mut late).now_or_never().is_none());
        drop(alone);
        assert!(late.now_or_never().is_some());
    }

    #[test]
    fn who_gives_up_waiting_opens_the_gate_again() {
        let gate = Gate::default();
        let inside = gate.together().now_or_never();
        assert!(gate.alone().now_or_never().is_none());
        assert!(gate.together().now_or_never().is_some());
        drop(inside);
        assert!(gate.alone().now_or_never().is_some());
        assert!(gate.alone().now_or_never().is_some());
    }

    #[test]
    fn a_crowd_gets_through() {
        let gate = Gate::default();
        let passed = std::cell::Cell::new(0);
        let pass = |n: usize| {
            let (gate, passed) = (&gate, &passed);
            async move {
                if n.is_multiple_of(3) {
                    let _alone = gate.alone().await;
                    pause().await;
                } else {
                    let _together = gate.together().await;
                    pause().await;
                }
                passed.set(passed.get() + 1);
            }
        };
        let mut crowd: futures_util::stream::FuturesUnordered<_> = (0..100).map(pass).collect();
        let all = async { while futures_util::StreamExt::next(&mut crowd).await.is_some() {} };
        futures_executor::block_on(all);
        assert_eq!(passed.get(), 100);
    }

    /// Lets the others go on once.
    async fn pause() {
        let mut waited = false;
        futures_util::future::poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }
}
