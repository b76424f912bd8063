//! A file that may do harm is read by a child process of this same program, which limits its own memory and CPU time (`functions/convert`) and whose end is not this one's. It gets none of
//! the environment, where the secrets are.

use crate::NotConverted;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The argument with which this program is that child.
pub const CONVERT: &str = "convert-pdf";

/// How many children there are at once.
static ROOM: Semaphore = Semaphore::const_new(2);

/// How long a file waits for one of them, and how long that may take: together less than the lease of the job that waits for both.
const WAIT: Duration = Duration::from_secs(10);
const TIME: Duration = Duration::from_secs(40);

/// How much a child may say, in bytes: a text's limit is 8 MiB, and a character of it six bytes at most as JSON.
const LARGEST: u64 = 64 << 20;

/// Has a child read a file.
pub(super) async fn apart(file: Vec<u8>) -> Result<String, NotConverted> {
    let _room = timeout(WAIT, ROOM.acquire()).await.map_err(|_| NotConverted::Away)?;
    let mut child = Command::new(program()?)
        .arg(CONVERT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| NotConverted::Away)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return Err(NotConverted::Away) };
    let send = async {
        // One that has ended reads nothing more.
        let _ = input.write_all(&file).await;
        drop(input);
    };
    let mut said = String::new();
    let mut output = output.take(LARGEST);
    let talk = async {
        let ((), read) = futures_util::join!(send, output.read_to_string(&mut said));
        let ended = child.wait().await?;
        if ended.success() { read } else { Err(ErrorKind::BrokenPipe.into()) }
    };
    match timeout(TIME, talk).await {
        Ok(Ok(_)) => Ok(said),
        Ok(Err(_)) | Err(_) => Err(NotConverted::Ended),
    }
}

/// This program, also when another version lies in its place by now.
fn program() -> Result<PathBuf, NotConverted> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { std::env::current_exe().map_err(|_| NotConverted::Away) }
}
