//! The whole log of a setup, read in pieces over the console, also while the operator works there.
//!
//! What is decided here: how a reader shares the one session that a container's console has. Where our loop is there already, it asks in
//! between and leaves the loop as it is; where there is none, it makes one and ends it, unless the operator has come meanwhile. A human's
//! session is left alone, as always. Values of Secrets are masked in the guest, as in the last lines.

use std::time::Duration;

use proxmox_client::Client;

use super::error::GuestError;
use super::facts::SetupPhase;
use super::op::GuestKey;
use super::report;
use super::shell::Shell;
use super::terminal::Terminal;
use super::visit::{self, Carrier, Manner};
use super::wire::protocol;

const DURING: &str = "reading the setup's log";
/// So much is read at a time: in between others have their turn.
const PIECE: usize = 128 * 1024;
/// The longest that something else in the guest is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Which run's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that runs or ran last.
    Last,
    /// The one before.
    Previous,
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it began, in Unix seconds by the guest's clock.
    pub started_at: i64,
    /// Where it stands.
    pub phase: SetupPhase,
    /// What follows in the log; nothing at its end.
    pub bytes: Vec<u8>,
}

/// A container's console, as a reader of logs uses it.
pub struct LogReader<T = Carrier> {
    pub(super) shell: Shell<T>,
    root: String,
    key: GuestKey,
}

impl LogReader {
    /// Opens the console, or touches nothing.
    ///
    /// # Errors
    /// The console could not be opened, or belongs to a human.
    pub async fn open(client: &Client, node: &str, key: &GuestKey) -> Result<Self, GuestError> {
        let shell = visit::shell(client, node, key, Manner::Share).await?;
        Ok(Self::over(shell, "", key))
    }
}

impl<T: Terminal> LogReader<T> {
    pub(super) fn over(shell: Shell<T>, root: &str, key: &GuestKey) -> Self {
        Self {
            shell,
            root: root.to_owned(),
            key: key.clone(),
        }
    }

    /// The piece that begins at an offset; `None` where there was no such run.
    ///
    /// # Errors
    /// The connection was lost, or the guest is busy with something else.
    pub async fn read(
        &mut self,
        which: Which,
        offset: usize,
    ) -> Result<Option<LogPiece>, GuestError> {
        let command = self.command(which, offset);
        let answer = self.shell.ask(&command, DURING, PATIENCE).await?;
        if answer.is_empty() {
            return Ok(None);
        }
        piece(&answer)
            .map(Some)
            .map_err(|()| protocol(DURING, "the log came without its heading"))
    }

    /// Leaves the console to whoever is there, or to everybody.
    pub async fn close(self) {
        self.shell.leave().await;
    }

    /// A heading (attempt, time of the start, phase), then the piece. In one line, so that it is evaluated at once or not at all.
    fn command(&self, which: Which, offset: usize) -> String {
        let mine = format!("{}/var/lib/phoenix/{}", self.root, self.key);
        let private = format!("{}/run/phoenix-setup", self.root);
        let whole = match which {
            Which::Previous => "cat previous||exit;cat previous.log".to_owned(),
            // as `masked` in lib.sh
            Which::Last => format!(
                "cd setup&&read -r i x at <started||exit;\
                 echo \"$(cat attempt) $at $(cat result||{{ [ -d /proc/$i ]&&{{ cat phase||echo running;}};}}||cat result||echo lost)\";\
                 if [ ! -f unmasked ];then cat log;\
                 elif [ -f {private}/masks ];then head -n $(wc -l <log) log|LC_ALL=C sed -f {private}/masks;\
                 elif [ ! -f unmasked ];then cat log;\
                 else echo '(It may hold values of Secrets that cannot be masked any more.)';fi"
            ),
        };
        format!(
            "cd {mine}&&{{ {whole};}}|{{ read -r h&&echo \"$h\";tail -c +{}|head -c {PIECE};}}",
            offset + 1
        )
    }
}

fn piece(answer: &[u8]) -> Result<LogPiece, ()> {
    let end = answer.iter().position(|byte| *byte == b'\n').ok_or(())?;
    let heading = std::str::from_utf8(&answer[..end]).map_err(drop)?;
    let mut words = heading.splitn(3, ' ');
    let mut word = || words.next().ok_or(());
    Ok(LogPiece {
        attempt: word()?.parse().map_err(drop)?,
        started_at: word()?.parse().map_err(drop)?,
        phase: report::phase(word()?).map_err(drop)?.0,
        bytes: answer[end + 1..].to_vec(),
    })
}
