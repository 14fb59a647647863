//! Scripts for the commonest calls: few layers, each a token bucket or a fixed window, all enforced, each of a
//! cost. One argument holds all of their parameters, one string is the answer, and each number is a local
//! variable.
//!
//! What a call of such a script costs the server is mostly what passes between it and the script: each
//! command, each text, each table; and noting when a state may go away, which takes more than all else of a
//! write. So a state says until when the server keeps it at least, and is written in its place while that is
//! long enough.

use super::NAMES;

/// As in `prelude.lua`, less what is not called.
const PRELUDE: &str = "\
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
";

/// The script for layers of these algorithms. If it `reserves`, it leaves a hold.
pub(super) fn text(layers: &[usize], reserves: bool) -> String {
    PRELUDE.to_owned() + &decision(&layers_of(layers), reserves)
}

/// The script for several calls of such layers, one after the other, whose answers stand one after the other.
/// What a script costs besides is shared by all of them.
pub(super) fn text_of_batch(layers: &[usize]) -> String {
    let layers = layers_of(layers);
    let (count, size) = (layers.len(), layers.iter().map(Layer::size).sum::<usize>());
    let decision = decision(&layers, false)
        .replace("KEYS[", "KEYS[before + ")
        .replace("ARGV[1])", "ARGV[1], from)");
    // All answers are of one length.
    let turned = format!("pack('<dd', -1, now) .. '{}'", "\\0".repeat(16 * count));
    let decision = decision.replace(TURNED, &turned);
    format!(
        "{PRELUDE}local function decide(before, from)\n{decision}end\n\
         local answers = {{}}\n\
         for i = 1, #KEYS / {count} do answers[i] = decide((i - 1) * {count}, (i - 1) * {size} + 1) end\n\
         return table.concat(answers)\n"
    )
}

fn layers_of(kinds: &[usize]) -> Vec<Layer> {
    let layers = kinds.iter().enumerate();
    layers.map(|(at, kind)| Layer { at: at + 1, kind: NAMES[*kind] }).collect()
}

/// What is answered where a calendar's window is another than was said.
const TURNED: &str = "pack('<dd', -1, now)";

/// One call's decision, as a function's body.
fn decision(layers: &[Layer], reserves: bool) -> String {
    let each = |line: fn(&Layer) -> String| layers.iter().map(line).collect::<String>();
    let list = |item: fn(&Layer) -> String| layers.iter().map(item).collect::<Vec<_>>().join(", ");
    let formats = each(|layer| layer.format().to_owned());
    let parameters = list(Layer::parameters);
    let mut text = format!("local {parameters} = unpack('<{formats}', ARGV[1])\n");
    text.push_str(&each(Layer::place));
    text.push_str(&match layers {
        [_] => "local state1 = call('GET', KEYS[1])\n".to_owned(),
        _ => {
            let keys = list(|layer| format!("KEYS[{}]", layer.at));
            format!("local states = call('MGET', {keys})\n") + &each(Layer::state_of_all)
        }
    });
    text.push_str("local denied = 0\n");
    text.push_str(&each(Layer::ask));
    let states = list(|layer| format!("a{0}, b{0}", layer.at));
    let answer = format!("return pack('<dd{}', denied, now, {states})", "dd".repeat(layers.len()));
    text.push_str(&format!("if denied > 0 then {answer} end\n"));
    text.push_str(&each(Layer::charge));
    if reserves {
        text.push_str("call('SET', KEYS[#KEYS], '', 'PX', ARGV[2])\n");
    }
    text + &answer + "\n"
}

/// A layer, by its place from 1 on. Its state is in `a` and `b`, and how long it is kept in `till`.
struct Layer {
    at: usize,
    kind: &'static str,
}

impl Layer {
    fn is_bucket(&self) -> bool {
        self.kind == "bucket"
    }

    /// The numbers of its place in place of each `#`.
    fn numbered(&self, text: &str) -> String {
        text.replace('#', &self.at.to_string())
    }

    /// Its part of the argument, less what a call of this kind always has.
    fn format(&self) -> &'static str {
        if self.is_bucket() { "xxxddddd" } else { "xxxdddddd" }
    }

    /// How long its part is, in bytes.
    fn size(&self) -> usize {
        self.format().bytes().map(|kind| if kind == b'd' { 8 } else { 1 }).sum()
    }

    fn parameters(&self) -> String {
        self.numbered(if self.is_bucket() {
            "units#, inc#, inc_part#, room#, room_part#"
        } else {
            "limit#, cost#, length#, number#, start#, finish#"
        })
    }

    /// Which window it is, as `window.lua` has it.
    fn place(&self) -> String {
        if self.is_bucket() {
            return String::new();
        }
        let text = "\
if start# < 0 then
  local into = now % length#
  number#, finish# = (now - into) / length#, now - into + length#
elseif now < start# or now >= finish# then
  return TURNED
end
";
        self.numbered(&text.replace("TURNED", TURNED))
    }

    fn state_of_all(&self) -> String {
        self.numbered("local state# = states[#]\n")
    }

    /// Whether there is room, as `bucket.lua` and `window.lua` have it.
    fn ask(&self) -> String {
        let bit = 1 << (self.at - 1);
        let text = if self.is_bucket() {
            "\
local a#, b#, till# = 0, 0, 0
if state# then a#, b#, till# = unpack('<ddd', state#) end
if a# > now + room# or (a# == now + room# and b# > room_part#) then denied = denied + BIT end
"
        } else {
            "\
local a#, b#, till# = number#, 0, 0
if state# then
  a#, b#, till# = unpack('<ddd', state#)
  if a# < number# then a#, b# = number#, math.max(b# - limit# * (number# - a#), 0) end
end
if b# + cost# > limit# then denied = denied + BIT end
"
        };
        self.numbered(&text.replace("BIT", &bit.to_string()))
    }

    /// Charges it. A bucket's state is kept for twice as long as it counts and a second, so that the calls
    /// which come next find it kept for long enough.
    fn charge(&self) -> String {
        self.numbered(if self.is_bucket() {
            "\
if a# < now then a#, b# = now, 0 end
a#, b# = a# + inc#, b# + inc_part#
if b# >= units# then a#, b# = a# + 1, b# - units# end
if a# <= till# then
  call('SETRANGE', KEYS[#], '0', pack('<dd', a#, b#))
else
  local ms = 2 * a# - now + 1000000
  ms = (ms - ms % 1000) / 1000
  call('SET', KEYS[#], pack('<ddd', a#, b#, ms * 1000), 'PXAT', ms)
end
"
        } else {
            "\
b#, finish# = b# + cost#, finish# + (a# - number#) * length#
if finish# <= till# then
  call('SETRANGE', KEYS[#], '0', pack('<dd', a#, b#))
else
  local ms = (finish# - finish# % 1000) / 1000 + 1
  call('SET', KEYS[#], pack('<ddd', a#, b#, ms * 1000), 'PXAT', ms)
end
"
        })
    }
}
