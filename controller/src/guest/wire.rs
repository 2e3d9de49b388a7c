//! The lines that go over the terminal: what turns a shell into our loop, how commands are framed, how output is read back.
//!
//! Pure text; `shell` decides when which of it is sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::GuestError;

/// What a script left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) exit: i32,
    pub(super) bytes: Vec<u8>,
}

/// The bytes of base64 in one line.
const CHUNK: usize = 800;
/// Discards what was typed of an unfinished line, and ends it in any case.
pub(super) const DISCARD_LINE: &[u8] = b"\x15\n";

/// Before [`TAKE_OVER`]: a bash that is older than a connection's patience declines, for then it was not fresh.
pub(super) const IF_FRESH: &str = r#" [ "${SECONDS:-0}" -lt 120 ] &&"#;

/// Turns the shell at a prompt into our loop. The words that are waited for are put together at run time, so that the echo of
/// this line contains none of them.
pub(super) const TAKE_OVER: &str = concat!(
    r#" unset HISTFILE && exec sh -c 'stty -echo || exit 1;P=phoenix;"#,
    r#"trap "W=1;echo $P-loop-1" WINCH;echo $P-ready;q=0;while [ $q -lt 9999 ];do "#,
    r#"if read -r n l d;then q=0;case $n in exit)exit;;x)[ "${#d}" = "$l" ]&&eval "$d";;esac;else q=$((q+1));fi;done'"#,
    "\n"
);

/// Our loop as a command over SSH, where there is no terminal and nobody else: it ends with its input, so that an idle one never
/// outlives its connection, and lets go of the guest's lock after each script.
pub(super) const OVER_SSH: &str = concat!(
    r#"exec sh -c 'P=phoenix;ALONE=1;echo $P-ready;"#,
    r#"while read -r n l d;do case $n in exit)exit;;x)[ "${#d}" = "$l" ]&&eval "$d";;esac;done'"#
);

/// What the loop needs to know before it takes work. `g` admits a line once and in order; `r` runs what was gathered in `c`.
pub(super) const HELLO: [&str; 3] = [
    r#"c=;f1=;f2=;f3=;f4=;f5=;export HOME="${HOME:-/root}" USER=root LOGNAME=root LC_ALL=C TERM=dumb;case :$PATH: in *:/usr/sbin:*);;*)PATH="${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";;esac;export PATH;cd /"#,
    r#"g(){ [ "$1" = "$N" ]||return 1;if [ "$2" -le "$S" ];then echo "K$2-$N";return 1;fi;[ "$2" = $((S+1)) ]||return 1;S=$2;}"#,
    concat!(
        r#"r(){ echo "B$1-$N";h=$(printf %s "$c"|sha256sum);if [ "${h%% *}" = "$2" ];then "#,
        r#"o=$({ (eval "$(printf %s "$c"|base64 -d)") </dev/null 2>&1;echo "=$?";}|base64);else o=;fi;"#,
        r#"c=;f1=;f2=;f3=;f4=;f5=;printf '%s\n' "$o";echo "E$1-$N ${#o}";o=;}"#
    ),
];

/// A line for the loop: it is evaluated only if it arrives with this length.
pub(super) fn frame(body: &str) -> String {
    debug_assert!(body.len() < 1000, "a terminal loses long lines");
    format!("x {} {body}\n", body.len())
}

/// A line by which a command's output comes back under a tag, beside whatever else the loop does. The tag begins with what no line of
/// base64 contains, so that another connection that gathers output passes over it.
pub(super) fn question(command: &str, tag: &str) -> String {
    frame(&format!(
        "(o=$({{ {command};}} </dev/null 2>/dev/null|base64);printf '%s\\n' \"$o\"|sed 's/^/{tag} /';echo \"{tag}. ${{#o}}\")"
    ))
}

/// The assignments that put together a long value.
pub(super) fn pieces(variable: &str, value: &str) -> Vec<String> {
    value
        .as_bytes()
        .chunks(CHUNK)
        .map(|chunk| {
            format!(
                "{variable}=${{{variable}}}{}",
                String::from_utf8_lossy(chunk)
            )
        })
        .collect()
}

pub(super) fn decode(
    encoded: &str,
    length: usize,
    during: &'static str,
) -> Result<Output, GuestError> {
    if encoded.len() != length {
        return Err(protocol(during, "the output arrived damaged"));
    }
    if length == 0 {
        return Err(protocol(
            during,
            "the script arrived damaged and did not run",
        ));
    }
    let joined: String = encoded.lines().collect();
    let mut bytes = BASE64
        .decode(joined)
        .map_err(|_| protocol(during, "the output is not base64"))?;
    let status = bytes.iter().rposition(|byte| *byte == b'=').and_then(|at| {
        Some((
            at,
            std::str::from_utf8(&bytes[at + 1..])
                .ok()?
                .trim()
                .parse()
                .ok()?,
        ))
    });
    let Some((at, exit)) = status else {
        return Err(protocol(during, "no exit status"));
    };
    bytes.truncate(at);
    Ok(Output { exit, bytes })
}

pub(super) fn protocol(during: &'static str, detail: &str) -> GuestError {
    GuestError::Protocol {
        during,
        detail: detail.to_owned(),
    }
}
