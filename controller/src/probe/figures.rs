//! How busy a vLLM server is, read from its `/metrics`.

/// What a server tells of its work. Counters begin anew with each engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VllmFigures {
    /// Requests that are worked on.
    pub running: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Tokens of all prompts so far.
    pub prompt_tokens: u64,
    /// Tokens generated so far.
    pub generation_tokens: u64,
    /// The engine's weights are put away: requests hang until it is woken.
    pub asleep: bool,
}

impl VllmFigures {
    /// Reads Prometheus' text format; several engines behind one server are summed up. `None`: it is no vLLM's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut figures = Self::default();
        let (mut known, mut awake, mut told) = (false, false, false);
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Some(value) = value.parse().ok().map(whole) else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let sum = match name {
                "vllm:num_requests_running" => &mut figures.running,
                "vllm:num_requests_waiting" => &mut figures.waiting,
                "vllm:prompt_tokens_total" => &mut figures.prompt_tokens,
                "vllm:generation_tokens_total" => &mut figures.generation_tokens,
                "vllm:engine_sleep_state" if labels.contains("sleep_state=\"awake\"") => {
                    told = true;
                    awake |= value > 0;
                    continue;
                }
                _ => continue,
            };
            known = true;
            *sum = sum.saturating_add(value);
        }
        figures.asleep = told && !awake;
        known.then_some(figures)
    }
}

/// A count, which Prometheus writes as a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion of floats saturates, and NaN becomes 0"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a real server (vLLM 0.32.0) answered after three requests; a second engine and exponents as other sizes bring them.
    const RECORDED: &str =
        "# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 2.0
vllm:num_requests_running{engine=\"1\",model_name=\"tiny\"} 1.0
vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 4.0
vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"tiny\",reason=\"capacity\"} 4.0
vllm:engine_sleep_state{engine=\"0\",model_name=\"tiny\",sleep_state=\"awake\"} 1.0
vllm:engine_sleep_state{engine=\"0\",model_name=\"tiny\",sleep_state=\"weights_offloaded\"} 0.0
vllm:prompt_tokens_total{engine=\"0\",model_name=\"tiny\"} 39.0
vllm:prompt_tokens_created{engine=\"0\",model_name=\"tiny\"} 1.7955455441251316e+09
vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"tiny\",source=\"local_compute\"} 39.0
vllm:generation_tokens_total{engine=\"0\",model_name=\"tiny\"} 1.2e+07
";

    #[test]
    fn a_servers_figures_are_read_and_engines_summed_up() {
        let expected = VllmFigures {
            running: 3,
            waiting: 4,
            prompt_tokens: 39,
            generation_tokens: 12_000_000,
            asleep: false,
        };
        assert_eq!(VllmFigures::parse(RECORDED), Some(expected));
        let asleep = RECORDED.replace("\"awake\"} 1.0", "\"awake\"} 0.0");
        assert!(VllmFigures::parse(&asleep).unwrap().asleep);
        let older: String = RECORDED
            .lines()
            .filter(|line| !line.contains("sleep_state"))
            .flat_map(|line| [line, "\n"])
            .collect();
        assert!(!VllmFigures::parse(&older).unwrap().asleep);
        for other in ["", "go_goroutines 9\n", "<html>vllm:</html>"] {
            assert_eq!(VllmFigures::parse(other), None);
        }
    }
}
