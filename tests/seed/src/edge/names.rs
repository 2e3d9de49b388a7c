//! A name server for which every name is this place.

use std::net::Ipv4Addr;

use tokio::net::UdpSocket;

pub(super) async fn serve(socket: UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length]) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// 127.0.0.1 to a question for an address of IPv4, nothing to any other.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut end = HEADER;
    // The name: parts that begin with their length, up to an empty one.
    loop {
        let length = usize::from(*query.get(end)?);
        end += 1 + length;
        if length == 0 {
            break;
        }
    }
    let question = query.get(HEADER..end + 4)?;
    let is_address = query.get(end..end + 2)? == [0, 1];
    let mut answer = query.get(..2)?.to_vec();
    // A response, recursion desired and available, no error; one question, one or no answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(question);
    if is_address {
        // The name of the question, an address, of the internet, for a minute, of four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x04name\x04test\0");
        query.extend([0, kind, 0, 1]);
        query
    }

    #[test]
    fn an_address_is_here_and_all_else_is_not() {
        let said = answer(&query(1)).unwrap();
        assert_eq!((&said[..2], said[7]), (&[7, 9][..], 1));
        assert!(said.ends_with(&[0, 4, 127, 0, 0, 1]));
        assert_eq!(answer(&query(28)).unwrap()[7], 0);
        assert_eq!(answer(&query(1)[..20]), None);
    }
}
