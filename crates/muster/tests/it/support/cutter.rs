//! A relay in front of PostgreSQL that loses a connection at the moment of a commit.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The text of the simple query that ends a transaction, with its end: `READ COMMITTED` begins one.
const COMMIT: &[u8] = b"COMMIT\0";
/// How long the database has to carry out a commit whose answer nobody hears.
const CARRIED_OUT_WITHIN: Duration = Duration::from_millis(500);

/// When a connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The database never hears of the commit.
    Before,
    /// The database commits, and its answer is lost.
    After,
}

/// What a connection carries that is to be lost, and when.
type Order = Option<(Vec<u8>, Cut)>;

/// A TCP relay. The connection that carries a text is lost at its next commit, once.
pub struct Cutter {
    pub address: SocketAddr,
    order: Arc<Mutex<Order>>,
    has_cut: Arc<AtomicBool>,
}

impl Cutter {
    /// A relay to `host:port`.
    pub async fn before(target: &str) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let cutter = Cutter {
            address: listener.local_addr().expect("it is bound"),
            order: Arc::default(),
            has_cut: Arc::default(),
        };
        let (order, has_cut, target) = (
            Arc::clone(&cutter.order),
            Arc::clone(&cutter.has_cut),
            target.to_owned(),
        );
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (order, has_cut) = (Arc::clone(&order), Arc::clone(&has_cut));
                let target = target.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(target).await {
                        pass(near, far, &order, &has_cut).await;
                    }
                });
            }
        });
        cutter
    }

    /// Loses the next connection that carries `text` at its next commit.
    pub fn cut(&self, text: &str, cut: Cut) {
        self.has_cut.store(false, Ordering::SeqCst);
        *self.order.lock().expect("nobody panics with it") = Some((text.as_bytes().to_vec(), cut));
    }

    /// Whether that has happened.
    pub fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::SeqCst)
    }
}

async fn pass(near: TcpStream, far: TcpStream, order: &Mutex<Order>, has_cut: &AtomicBool) {
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (near.into_split(), far.into_split());
    let is_deaf = AtomicBool::new(false);
    let up = async {
        let (mut chunk, mut since_commit) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let count = near_read.read(&mut chunk).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            since_commit.extend_from_slice(&chunk[..count]);
            let is_commit = holds(&since_commit, COMMIT);
            let cut = if is_commit {
                take_if(order, &since_commit)
            } else {
                None
            };
            if cut == Some(Cut::Before) {
                has_cut.store(true, Ordering::SeqCst);
                return;
            }
            is_deaf.store(cut == Some(Cut::After), Ordering::SeqCst);
            if far_write.write_all(&chunk[..count]).await.is_err() {
                return;
            }
            if cut == Some(Cut::After) {
                tokio::time::sleep(CARRIED_OUT_WITHIN).await;
                has_cut.store(true, Ordering::SeqCst);
                return;
            }
            if is_commit {
                since_commit.clear();
            }
        }
    };
    let down = async {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let count = far_read.read(&mut chunk).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            let is_lost = is_deaf.load(Ordering::SeqCst);
            if !is_lost && near_write.write_all(&chunk[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

fn take_if(order: &Mutex<Order>, sent: &[u8]) -> Option<Cut> {
    let mut order = order.lock().expect("nobody panics with it");
    let is_meant = order.as_ref().is_some_and(|(text, _)| holds(sent, text));
    if is_meant {
        order.take().map(|(_, cut)| cut)
    } else {
        None
    }
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
