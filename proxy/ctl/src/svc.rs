//! `causeway svc test`

use std::collections::BTreeMap;
use std::net::IpAddr;

use causeway_api::{SvcTest, SvcTestAnswer};
use serde_json::{Value, json};

use crate::cli::{Document, Format, SvcTestArgs};
use crate::daemon::Daemon;
use crate::screen::{Screen, Style};
use crate::table;
use crate::trace::{qualified, source};
use crate::{Failure, Verdict};

pub(crate) fn test(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &SvcTestArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    let request = request(args)?;
    let mut answers: Vec<SvcTestAnswer> = Vec::new();
    daemon.lines("POST", "/v1/svc-test", Some(&json!(request)), &mut |answer| {
        if form == Document::Text {
            show(screen, &answer)?;
        }
        answers.push(answer);
        Ok(())
    })?;
    match form {
        Document::Text => screen.say_all(&shares(&answers))?,
        Document::Json => screen.json(&document(&answers))?,
        Document::Yaml => screen.yaml(&document(&answers))?,
    }
    let all = u32::try_from(answers.len()).is_ok_and(|count| count >= request.count);
    Ok(Verdict::finding_if(!all || answers.iter().any(|answer| !is_good(answer))))
}

fn request(args: &SvcTestArgs) -> Result<SvcTest, Failure> {
    let (service, port) = match args.service.split_once(':') {
        Some((service, port)) if !port.is_empty() => (service, Some(port.to_owned())),
        Some(_) => return Err(Failure::Usage("a port name or number is required after :".into())),
        None => (args.service.as_str(), None),
    };
    let (namespace, name) = qualified(service, &args.namespace.namespace);
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Failure::Usage(format!("{service} is not [NAMESPACE/]NAME")));
    }
    let from = source(&args.from, &args.namespace.namespace);
    let [namespace, name] = [namespace, name].map(str::to_owned);
    Ok(SvcTest { namespace, name, port, count: args.count, from })
}

/// A line as soon as there is an answer.
fn show(screen: &mut Screen, answer: &SvcTestAnswer) -> Result<(), Failure> {
    let number = answer.number;
    match (answer.address, &answer.error) {
        (Some(address), None) => screen.say(&format!("{number}: {address}"))?,
        (Some(address), Some(error)) => {
            screen.say_in(Style::Bad, &format!("{number}: {address}: {error}"))?;
        }
        (None, error) => {
            let error = error.as_deref().unwrap_or("no answer");
            screen.say_in(Style::Bad, &format!("{number}: {error}"))?;
        }
    }
    Ok(screen.flush()?)
}

/// The connection was accepted, and the reply came back.
fn is_good(answer: &SvcTestAnswer) -> bool {
    answer.address.is_some() && answer.error.is_none()
}

fn count(answers: &[SvcTestAnswer]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    let good = answers.iter().filter(|answer| is_good(answer));
    for address in good.filter_map(|answer| answer.address) {
        *counts.entry(address).or_insert(0) += 1;
    }
    counts
}

/// The share of each address that took connections, or that answered, if answers are waited for.
fn shares(answers: &[SvcTestAnswer]) -> Vec<String> {
    let total = answers.len();
    let row = |address: String, count: usize| {
        // In tenths of a percent, rounded.
        let tenths = (count * 2000 + total) / (total * 2);
        vec![address, count.to_string(), format!("{}.{}%", tenths / 10, tenths % 10)]
    };
    let counts = count(answers);
    let mut rows: Vec<_> = counts.iter().map(|(address, &n)| row(address.to_string(), n)).collect();
    let failed = answers.iter().filter(|answer| !is_good(answer)).count();
    if failed > 0 {
        rows.push(row("failed".to_owned(), failed));
    }
    if rows.is_empty() {
        return Vec::new();
    }
    let mut good = answers.iter().filter(|answer| is_good(answer)).peekable();
    let answered = good.peek().is_some() && good.all(|answer| answer.answered);
    let counted = if answered { "ANSWERS" } else { "CONNECTIONS" };
    let mut lines = vec![String::new()];
    lines.extend(table::lines(&["ENDPOINT", counted, "SHARE"], &rows));
    lines
}

fn document(answers: &[SvcTestAnswer]) -> Value {
    let shares: BTreeMap<String, usize> =
        count(answers).into_iter().map(|(address, n)| (address.to_string(), n)).collect();
    json!({"answers": answers, "shares": shares})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Namespace;

    /// Rows: RB10
    #[test]
    fn shares_are_counted_per_endpoint() {
        let answer = |number, last: Option<u8>| SvcTestAnswer {
            number,
            address: last.map(|last| IpAddr::from([10, 0, 1, last])),
            error: None,
            answered: true,
        };
        let answers = [Some(3), Some(2), Some(3), None, Some(3), Some(2)];
        let mut answers: Vec<_> = (1..).zip(answers).map(|(n, last)| answer(n, last)).collect();
        assert_eq!(
            shares(&answers),
            [
                "",
                "ENDPOINT   ANSWERS   SHARE",
                "10.0.1.2   2         33.3%",
                "10.0.1.3   3         50.0%",
                "failed     1         16.7%",
            ]
        );
        assert!(shares(&[]).is_empty());
        // Sent to an endpoint that did not answer.
        answers[0].error = Some("no reply".to_owned());
        assert_eq!(
            shares(&answers)[3..],
            ["10.0.1.3   2         33.3%", "failed     2         33.3%"]
        );
        // TCP: opened, not answered.
        answers.truncate(2);
        answers.iter_mut().for_each(|one| (one.error, one.answered) = (None, false));
        assert_eq!(shares(&answers)[1], "ENDPOINT   CONNECTIONS   SHARE");
    }

    #[test]
    fn the_service_may_bring_namespace_and_port() {
        for (words, wanted) in [
            (("web", "node"), Some(("default", "web", None, "node"))),
            (("shop/web:http", "p1"), Some(("shop", "web", Some("http"), "default/p1"))),
            (("web:80", "shop/p1"), Some(("default", "web", Some("80"), "shop/p1"))),
            (("web:", "node"), None),
            (("/web", "node"), None),
            (("a/b/c", "node"), None),
        ] {
            let [service, from, namespace] = [words.0, words.1, "default"].map(str::to_owned);
            let namespace = Namespace { namespace };
            let got = request(&SvcTestArgs { service, count: 8, from, namespace }).ok();
            let wanted = wanted.map(|(namespace, name, port, from)| SvcTest {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                port: port.map(str::to_owned),
                count: 8,
                from: from.to_owned(),
            });
            assert_eq!(got, wanted, "{words:?}");
        }
    }
}
