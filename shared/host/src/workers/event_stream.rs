//! A streaming response on Workers: the runtime's own `IdentityTransformStream`, whose readable end it sends without JavaScript in between.
//!
//! What is pushed while a write is under way is written next, in one piece: each write costs a pass through JavaScript. A client that has
//! gone makes the write fail; from then on nothing is written, and whoever pushes goes on with their work.

use crate::stream::EventSink;
use axum::body::Body;
use axum::response::Response;
use send_wrapper::SendWrapper;
use std::cell::RefCell;
use std::rc::Rc;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    type IdentityTransformStream;

    #[wasm_bindgen(constructor)]
    fn new() -> IdentityTransformStream;

    #[wasm_bindgen(method, getter)]
    fn readable(this: &IdentityTransformStream) -> web_sys::ReadableStream;

    #[wasm_bindgen(method, getter)]
    fn writable(this: &IdentityTransformStream) -> Writable;

    type Writable;

    /// Not `web_sys`'s: a new stream is never locked, so this cannot throw.
    #[wasm_bindgen(method, js_name = getWriter)]
    fn get_writer(this: &Writable) -> web_sys::WritableStreamDefaultWriter;
}

/// The readable end, carried to the runtime in the response's extensions.
#[derive(Clone)]
pub(super) struct Readable(pub(super) SendWrapper<web_sys::ReadableStream>);

/// The writing end.
pub struct Sink(SendWrapper<Rc<Pump>>);

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

struct Pump {
    writer: web_sys::WritableStreamDefaultWriter,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    writing: bool,
    gone: bool,
    closing: Option<futures_channel::oneshot::Sender<()>>,
}

pub(super) fn open() -> (Sink, Response) {
    let stream = IdentityTransformStream::new();
    let pump = Pump { writer: stream.writable().get_writer(), state: RefCell::default() };
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Readable(SendWrapper::new(stream.readable())));
    (Sink(SendWrapper::new(Rc::new(pump))), response)
}

impl EventSink for Sink {
    fn push(&self, bytes: &[u8]) {
        let mut state = self.0.state.borrow_mut();
        if state.gone {
            return;
        }
        state.waiting.extend_from_slice(bytes);
        if !state.writing {
            state.writing = true;
            drop(state);
            wasm_bindgen_futures::spawn_local(write(Rc::clone(&self.0)));
        }
    }

    fn close(self) -> impl Future<Output = ()> + Send {
        SendWrapper::new(async move {
            let (done, closed) = futures_channel::oneshot::channel();
            let busy = {
                let mut state = self.0.state.borrow_mut();
                state.closing = Some(done);
                std::mem::replace(&mut state.writing, true)
            };
            if !busy {
                write(Rc::clone(&self.0)).await;
            }
            let _ = closed.await;
        })
    }
}

/// Writes what is waiting until nothing is, then closes if that was asked.
async fn write(pump: Rc<Pump>) {
    loop {
        let (bytes, gone) = {
            let mut state = pump.state.borrow_mut();
            (std::mem::take(&mut state.waiting), state.gone)
        };
        if bytes.is_empty() || gone {
            break;
        }
        let chunk = js_sys::Uint8Array::from(bytes.as_slice());
        if JsFuture::from(pump.writer.write_with_chunk(&chunk)).await.is_err() {
            pump.state.borrow_mut().gone = true;
        }
    }
    let (closing, gone) = {
        let mut state = pump.state.borrow_mut();
        state.writing = false;
        (state.closing.take(), state.gone)
    };
    if let Some(done) = closing {
        if !gone {
            let _ = JsFuture::from(pump.writer.close()).await;
        }
        let _ = done.send(());
    }
}
