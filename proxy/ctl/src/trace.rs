//! `causeway trace`

use std::net::IpAddr;

use causeway_api::{TraceAnswer, TraceRequest};
use causeway_ruleset::trace::{Choice, Outcome};
use serde_json::json;

use crate::cli::{Document, Format, TraceArgs};
use crate::columns::socket;
use crate::daemon::Daemon;
use crate::screen::{Screen, Style};
use crate::{Failure, Verdict};

/// The word for a packet that comes from the node itself.
const NODE: &str = "node";

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &TraceArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    if args.live {
        return Err(Failure::Usage("--live is not supported in this version".into()));
    }
    let request = request(&args.from, &args.to, &args.namespace.namespace)?;
    let answer: TraceAnswer = daemon.post("/v1/trace", &json!(request))?;
    match form {
        Document::Text => show(screen, &answer)?,
        Document::Json => screen.json(&json!(answer))?,
        Document::Yaml => screen.yaml(&json!(answer))?,
    }
    Ok(Verdict::finding_if(matches!(answer.trace.outcome, Outcome::Reject | Outcome::Drop)))
}

/// Where packets come from: `node` and addresses as they are, a pod with its namespace.
pub(crate) fn source(from: &str, namespace: &str) -> String {
    if from == NODE || from.parse::<IpAddr>().is_ok() {
        return from.to_owned();
    }
    full_name(from, namespace)
}

fn full_name(text: &str, namespace: &str) -> String {
    let (namespace, name) = qualified(text, namespace);
    format!("{namespace}/{name}")
}

/// Namespace and name of `[NAMESPACE/]NAME`.
pub(crate) fn qualified<'a>(text: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    text.split_once('/').unwrap_or((namespace, text))
}

fn request(from: &str, to: &str, namespace: &str) -> Result<TraceRequest, Failure> {
    let (to, protocol) = split_protocol(to);
    let (to, port) = split_port(to)?;
    let bare = to.trim_start_matches('[').trim_end_matches(']');
    let to = match bare.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => full_name(to, namespace),
    };
    if from.is_empty() || to.ends_with('/') {
        return Err(Failure::Usage("trace needs FROM and TO[:PORT][/PROTO]".into()));
    }
    Ok(TraceRequest { from: source(from, namespace), to, port, protocol })
}

/// Splits `/tcp`, `/udp` or `/sctp` off; any other slash stands after a namespace.
fn split_protocol(to: &str) -> (&str, Option<String>) {
    if let Some((rest, word)) = to.rsplit_once('/') {
        let word = word.to_ascii_lowercase();
        if matches!(word.as_str(), "tcp" | "udp" | "sctp") {
            return (rest, Some(word));
        }
    }
    (to, None)
}

/// Splits `:PORT` off; an IPv6 address with a port stands in brackets.
fn split_port(to: &str) -> Result<(&str, Option<u16>), Failure> {
    let bare_v6 = to.parse::<IpAddr>().is_ok();
    match to.rsplit_once(':') {
        Some((rest, digits)) if !bare_v6 && !to.ends_with(']') => match digits.parse() {
            Ok(port) if port > 0 => Ok((rest, Some(port))),
            _ => {
                Err(Failure::Usage(format!("{digits} is not a port; use a number from 1 to 65535")))
            }
        },
        _ => Ok((to, None)),
    }
}

fn show(screen: &mut Screen, answer: &TraceAnswer) -> Result<(), Failure> {
    screen.say(&answer.packet)?;
    for (position, step) in answer.trace.steps.iter().enumerate() {
        screen.say(&format!("  {}. {step}", position + 1))?;
    }
    // Without a service only a host port leads to a container.
    let nobody = match answer.trace.outcome {
        Outcome::Endpoints(_) => "host port",
        Outcome::Pass | Outcome::Reject | Outcome::Drop => "no service",
    };
    let service = answer.trace.service.as_deref().unwrap_or(nobody);
    let (style, verdict) = match &answer.trace.outcome {
        Outcome::Pass => (Style::Good, format!("passes ({service}): forwarded unchanged")),
        Outcome::Reject => (Style::Bad, format!("rejected ({service}): ICMP port unreachable")),
        Outcome::Drop => (Style::Bad, format!("dropped ({service}): no answer at all")),
        Outcome::Endpoints(choices) => (Style::Good, delivered(service, choices)),
    };
    screen.say_in(style, &verdict)?;
    if let Outcome::Endpoints(choices) = &answer.trace.outcome {
        for choice in choices {
            let endpoint = socket(&choice.address.to_string(), &choice.port.to_string());
            let seen = if choice.masquerade { ", which sees the node as the client" } else { "" };
            screen.say(&format!("  {endpoint}{seen}"))?;
        }
    }
    Ok(())
}

fn delivered(service: &str, choices: &[Choice]) -> String {
    match choices.len() {
        1 => format!("delivered ({service}) to"),
        count => format!("delivered ({service}) to one of {count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(to: &str, wanted: Option<(&str, Option<u16>, Option<&str>)>) {
        let wanted = wanted.map(|(to, port, protocol)| TraceRequest {
            from: NODE.to_owned(),
            to: to.to_owned(),
            port,
            protocol: protocol.map(str::to_owned),
        });
        assert_eq!(request(NODE, to, "default").ok(), wanted, "{to}");
    }

    #[test]
    fn a_destination_is_a_name_or_an_address_with_port_and_protocol() {
        check("web", Some(("default/web", None, None)));
        check("web:80", Some(("default/web", Some(80), None)));
        check("shop/web:80/udp", Some(("shop/web", Some(80), Some("udp"))));
        check("shop/web", Some(("shop/web", None, None)));
        check("web/TCP", Some(("default/web", None, Some("tcp"))));
        check("10.96.0.1:80", Some(("10.96.0.1", Some(80), None)));
        check("fd00::1", Some(("fd00::1", None, None)));
        check("[fd00::1]", Some(("fd00::1", None, None)));
        check("[fd00::1]:53/sctp", Some(("fd00::1", Some(53), Some("sctp"))));
        check("node:30080", Some(("default/node", Some(30080), None)));
        check("web:http", None);
        check("web:0", None);
        check("web:65536", None);
        check("", None);
    }

    #[test]
    fn a_source_is_the_node_an_address_or_a_pod() {
        for (from, wanted) in [
            ("node", "node"),
            ("192.0.2.1", "192.0.2.1"),
            ("fd00::9", "fd00::9"),
            ("p1", "default/p1"),
            ("shop/p1", "shop/p1"),
        ] {
            assert_eq!(source(from, "default"), wanted);
        }
    }
}
