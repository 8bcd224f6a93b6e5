//! `/`: every endpoint with its parameters, to be used from a browser.

use std::fmt::Write as _;

use super::handlers::{HANDLERS, Handler, Input, Param};
use super::{Asked, Page};
use crate::engine::Core;

const HEAD: &str = "<!DOCTYPE html>
<html lang='en'>
<head>
<title>Envoy Admin</title>
<meta name='viewport' content='width=device-width'>
<style>
  body { font-family: sans-serif; font-size: medium; }
  .home-table { border-collapse: collapse; border-spacing: 0; }
  .home-data { text-align: left; padding: 4px; }
  .home-form { margin-bottom: 0; }
  .button-as-link { background: none!important; border: none; padding: 0!important; font: inherit; color: #069;
    text-decoration: underline; cursor: pointer; }
  .gray { background-color: #dddddd; }
  .vert-space { height: 4px; }
  .option { padding: 4px 4px 4px 20px; text-align: right; }
</style>
</head>
<body>
<table class='home-table'>
<thead><tr><th class='home-data'>Command</th><th class='home-data'>Description</th></tr></thead>
<tbody>
";

pub(super) fn page(_: &Core, _: &Asked) -> Page {
    let mut html = HEAD.to_owned();
    for (index, handler) in HANDLERS
        .iter()
        .filter(|handler| !handler.path.is_empty())
        .enumerate()
    {
        let gray = if index % 2 == 0 { " class='gray'" } else { "" };
        row(&mut html, handler, gray);
    }
    html.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    Page::html(html)
}

fn row(html: &mut String, handler: &Handler, gray: &str) {
    let Handler {
        path,
        help,
        mutates,
        params,
        ..
    } = handler;
    let id = path.replace('/', "-");
    let command = if !mutates && params.is_empty() {
        format!("<a href='{path}'>{path}</a>")
    } else {
        // What changes something is a button, so that neither a crawler nor a slip of the hand triggers it.
        let method = if *mutates { "post" } else { "get" };
        format!(
            "<form action='{path}' method='{method}' id='{id}' class='home-form'>\
             <button class='button-as-link'>{path}</button></form>"
        )
    };
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<tr class='vert-space'><td></td><td></td></tr>\n<tr{gray}>\n  <td class='home-data'>{command}</td>\n  \
         <td class='home-data'>{}</td>\n</tr>\n",
        escape(help)
    );
    for param in *params {
        option(html, &id, param, gray);
    }
}

fn option(html: &mut String, form: &str, param: &Param, gray: &str) {
    let Param { name, help, input } = param;
    let id = format!("param-{form}-{name}");
    let field = match input {
        Input::Flag => format!("<input type='checkbox' name='{name}' id='{id}' form='{form}'>"),
        Input::Text => format!("<input type='text' name='{name}' id='{id}' form='{form}'>"),
        Input::OneOf(choices) => {
            let choices: Vec<String> = choices
                .iter()
                .map(|choice| format!("<option value='{choice}'>{choice}</option>"))
                .collect();
            format!(
                "<select name='{name}' id='{id}' form='{form}'>{}</select>",
                choices.concat()
            )
        }
    };
    let _ = write!(
        html,
        "<tr{gray}>\n  <td class='option'>{field}</td>\n  <td class='home-data'><label for='{id}'>{}</label></td>\n</tr>\n",
        escape(help)
    );
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&#39;")
        .replace('"', "&quot;")
}
