//! Group commit: one thread takes whatever waits, makes it durable as one batch, and answers all.

use crate::Outcome;
use crate::append::Appender;
use crate::cell::{self, Figures, Span};
use crate::engines::Engine;
use crate::records::{self, Records, Texts};
use crate::stop::Stop;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// Records that may wait: as many as the gateway's journal lets wait.
const QUEUE: usize = 4096;

/// Measures an engine behind a writer's thread, and drops it there.
pub(crate) fn measure<E: Engine>(
    engine: E,
    runtime: &Runtime,
    records: &Records,
    span: Span,
    stop: &Stop,
) -> Outcome<Figures> {
    let (queue, waiting) = sync_channel(QUEUE);
    let herald = Herald::start(runtime);
    let writer = std::thread::Builder::new().name("writer".into()).spawn(move || write(engine, &waiting, &herald))?;
    let appenders = (0..span.appenders).map(|n| Bytes { queue: queue.clone(), texts: records.of(n) }).collect();
    drop(queue);
    let figures = cell::run(runtime, appenders, span.measured, stop);
    // What the writer says is why the appenders failed.
    writer.join().map_err(|_| "the writer panicked")??;
    figures
}

struct Waiting {
    bytes: Vec<u8>,
    done: oneshot::Sender<()>,
}

fn write<E: Engine>(mut engine: E, queue: &Receiver<Waiting>, herald: &Herald) -> Outcome<()> {
    while let Ok(first) = queue.recv() {
        let (mut batch, mut waited_for) = (vec![first.bytes], vec![first.done]);
        while let Ok(Waiting { bytes, done }) = queue.try_recv() {
            batch.push(bytes);
            waited_for.push(done);
        }
        engine.commit(&batch)?;
        herald.tell(waited_for);
    }
    Ok(())
}

/// Tells a batch that it is durable, as the gateway's journal does: each wake from another thread costs a system call, so
/// one task within the runtime is woken and wakes all the others.
struct Herald(mpsc::UnboundedSender<Vec<oneshot::Sender<()>>>);

impl Herald {
    fn start(runtime: &Runtime) -> Self {
        let (batches, mut told) = mpsc::unbounded_channel();
        runtime.spawn(async move {
            while let Some(batch) = told.recv().await {
                Self::tell_all(batch);
            }
        });
        Self(batches)
    }

    fn tell(&self, batch: Vec<oneshot::Sender<()>>) {
        if batch.len() == 1 {
            Self::tell_all(batch);
        } else if let Err(mpsc::error::SendError(batch)) = self.0.send(batch) {
            Self::tell_all(batch);
        }
    }

    fn tell_all(batch: Vec<oneshot::Sender<()>>) {
        for done in batch {
            // An appender that does not wait any more was stopped.
            let _ = done.send(());
        }
    }
}

/// Appends bytes.
struct Bytes {
    queue: SyncSender<Waiting>,
    texts: Texts,
}

impl Appender for Bytes {
    type Record = Vec<u8>;

    fn next(&mut self) -> Vec<u8> {
        records::json(&mut self.texts)
    }

    async fn append(&self, bytes: Vec<u8>) -> Outcome<()> {
        let (done, durable) = oneshot::channel();
        self.queue.try_send(Waiting { bytes, done }).map_err(|_| "the writer takes no more records")?;
        Ok(durable.await?)
    }
}
