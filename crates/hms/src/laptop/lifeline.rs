//! The lifeline: a socket on which the supervisor never says anything. Its children connect; when the connection closes, the
//! supervisor has ended, also after `kill -9`.

use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::tasks;

/// The most children one supervisor has.
const MOST_CHILDREN: usize = 4096;

/// The supervisor's end. Dropping it tells every child to finish.
#[derive(Debug)]
pub(crate) struct Lifeline {
    path: PathBuf,
    acceptor: JoinHandle<()>,
}

impl Lifeline {
    /// Opens the socket.
    pub(crate) fn open(path: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&path)?;
        let acceptor = tasks::spawn("lifeline", async move {
            let mut children: Vec<UnixStream> = Vec::new();
            loop {
                match listener.accept().await {
                    Ok((child, _)) => {
                        children.retain(is_open);
                        if children.len() < MOST_CHILDREN {
                            children.push(child);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "lifeline cannot accept");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(Self { path, acceptor })
    }

    /// Where children connect.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.acceptor.abort();
        // A leftover is found and removed by the next command.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Whether the other end still holds the connection; children never write either.
fn is_open(stream: &UnixStream) -> bool {
    let mut byte = [0; 1];
    match stream.try_read(&mut byte) {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
