//! The store in one SQLite file, the default. One thread owns the connection; everything goes through it in order, so a read
//! sees every write acknowledged before it, and a watch begins between two commits.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::file::File;
use super::feed::{Feed, Watch};
use super::{Answer, Entry, Keyspace, Listing, LocalLeases, Precondition, Revision, Store, StoreError, Write};

mod file;
#[cfg(test)]
mod tests;

/// Requests that may wait for the thread; callers beyond wait themselves.
const QUEUE: usize = 256;

/// A store in a file.
#[derive(Debug)]
pub struct SqliteStore {
    requests: mpsc::Sender<Request>,
    leases: LocalLeases,
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

#[derive(Debug)]
enum Request {
    Get(Keyspace, String, Reply<Option<Entry>>),
    List(Keyspace, String, Reply<Listing>),
    Commit(Keyspace, Vec<Precondition>, Vec<Write>, Reply<Revision>),
    Watch(Keyspace, String, Revision, Reply<Watch>),
    Compact(Revision, Reply<()>),
    Close(Reply<()>),
}

impl SqliteStore {
    /// Opens the file, or makes it (mode 0600) where there is none. Checks all of it first: this blocks, and a damaged file is
    /// refused with [`StoreError::Corrupt`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || serve(file, queue))
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { requests, leases: LocalLeases::default() })
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_gone| StoreError::Closed)?;
        answer.await.map_err(|_gone| StoreError::Closed)?
    }
}

/// The thread: ends when the last handle is dropped, and closes the file properly then.
fn serve(mut file: File, mut queue: mpsc::Receiver<Request>) {
    let mut feed = Feed::default();
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Get(space, key, reply) => answer(reply, file.get(space, &key)),
            Request::List(space, prefix, reply) => answer(reply, file.list(space, &prefix)),
            Request::Commit(space, preconditions, writes, reply) => {
                let done = file.commit(space, &preconditions, writes);
                answer(reply, done.as_ref().map(|(revision, _)| *revision).map_err(Clone::clone));
                if let Ok((revision, changes)) = done {
                    feed.publish(space, revision, &changes);
                }
                if let Err(error) = file.tidy() {
                    tracing::warn!(%error, "the store could not be compacted");
                }
            }
            Request::Watch(space, prefix, since, reply) => {
                let past = file.past(space, &prefix, since);
                answer(
                    reply,
                    past.map(|past| past.map_or_else(Feed::compacted, |past| feed.watch(space, &prefix, past))),
                );
            }
            Request::Compact(until, reply) => answer(reply, file.compact(until)),
            Request::Close(reply) => {
                feed.close();
                drop(file);
                answer(reply, Ok(()));
                return;
            }
        }
    }
    feed.close();
}

/// Nobody minds if the asker has gone: what was done stays done.
fn answer<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    drop(reply.send(result));
}

impl Store for SqliteStore {
    fn get(&self, space: Keyspace, key: &str) -> Answer<'_, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(self.ask(move |reply| Request::Get(space, key, reply)))
    }

    fn list(&self, space: Keyspace, prefix: &str) -> Answer<'_, Listing> {
        let prefix = prefix.to_owned();
        Box::pin(self.ask(move |reply| Request::List(space, prefix, reply)))
    }

    fn commit(&self, space: Keyspace, preconditions: Vec<Precondition>, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(self.ask(move |reply| Request::Commit(space, preconditions, writes, reply)))
    }

    fn watch(&self, space: Keyspace, prefix: &str, since: Revision) -> Answer<'_, Watch> {
        let prefix = prefix.to_owned();
        Box::pin(self.ask(move |reply| Request::Watch(space, prefix, since, reply)))
    }

    fn compact(&self, until: Revision) -> Answer<'_, ()> {
        Box::pin(self.ask(move |reply| Request::Compact(until, reply)))
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(self.ask(Request::Close))
    }

    fn lease(&self, name: &str, holder: &str, time_to_live: Duration) -> Answer<'_, bool> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Box::pin(async move { Ok(self.leases.take(&name, &holder, time_to_live)) })
    }
}
