//! Servers that answer and yet are not what they seem: an engine that sleeps, a Portainer without an administrator.

use super::*;
use crate::probe::FirstRun;

#[tokio::test]
async fn an_engine_that_sleeps_is_not_serving_and_is_asked_for_nothing() {
    let (vllm, port) = Vllm::start().await;
    let (client, mut watch) = (client(None), VllmWatch::default());
    assert_eq!(watch.look(&client, &target(port)).await, serving());
    assert_eq!(watch.figures().map(|f| f.running), Some(1));
    // health, models and version answer as before; a completion would hang
    vllm.set(|a| (a.metrics, a.hangs) = (ASLEEP, true));
    let asleep = watch.look(&client, &target(port)).await;
    assert!(
        matches!(&asleep, VllmProbe::NoCompletion { why } if why.contains("/wake_up")),
        "{asleep:?}"
    );
    assert_eq!(vllm.completions(), 1);
    vllm.set(|a| (a.metrics, a.hangs) = (AWAKE, false));
    assert_eq!(watch.look(&client, &target(port)).await, serving());
    assert_eq!(vllm.completions(), 2, "it is asked anew");
    vllm.set(|a| a.metrics = "");
    assert_eq!(watch.look(&client, &target(port)).await, serving());
    assert_eq!(watch.figures(), None);
}

#[tokio::test]
async fn a_portainer_without_an_administrator_says_so() {
    const STATUS: &str =
        r#"{"Version":"2.39.6","InstanceID":"299ab403-70a8-4c05-92f7-bf7a994d50df"}"#;
    const TIMEOUT: &str = r#"{"message":"Administrator initialization timeout","details":"Administrator initialization timeout"}"#;
    const STRANGER: &str = r#"{"Version":"1.0"}"#;
    let rows = [
        ((200, STATUS), 404, (true, Some(FirstRun::NoAdministrator))),
        ((200, STATUS), 204, (true, None)),
        // what guards the question tells nothing of the answer
        ((200, STATUS), 401, (true, None)),
        ((303, TIMEOUT), 303, (false, Some(FirstRun::Closed))),
        ((303, "{}"), 303, (false, None)),
        ((200, STRANGER), 404, (true, None)),
        ((200, "<html>"), 404, (true, None)),
    ];
    for ((code, body), check, (healthy, first_run)) in rows {
        let answer = move |uri: Uri| async move {
            let (code, body) = match uri.path() {
                "/api/system/status" => (code, body),
                "/api/users/admin/check" => (check, ""),
                _ => (500, ""),
            };
            (StatusCode::from_u16(code).unwrap(), body)
        };
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let target = HttpTarget {
            https: false,
            address: HERE,
            port,
            path: "/api/system/status".to_owned(),
            expect_status: 200,
            insecure_skip_verify: false,
        };
        let expected = if healthy {
            HttpProbe::Healthy {
                status: code,
                first_run,
            }
        } else {
            HttpProbe::Unhealthy {
                status: code,
                first_run,
            }
        };
        assert_eq!(client(None).http(&target).await, expected);
    }
}
