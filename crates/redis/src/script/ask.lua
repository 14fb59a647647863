local results, nexts, keeps, denied, refused = { 0, now }, {}, {}, 0, false
--{window
for i = 1, #ARGV do
  if byte(ARGV[i]) == 2 then
    local _, _, _, number = place(ARGV[i])
    if not number then return { -1, now } end
  end
end
--}
for i = 1, #ARGV do
  local at = ARGV[i]
  local kind, dry_run = byte(at, 1, 2)
  local state, next, keep
--{bucket
  if kind == 1 then state, next, keep = bucket(call('GET', KEYS[i]), at) end
--}
--{window
  if kind == 2 then state, next, keep = window(call('GET', KEYS[i]), at) end
--}
--{counter
  if kind == 3 then state, next, keep = counter(KEYS[i], at) end
--}
--{log
  if kind == 4 then state, next, keep = log(KEYS[i], at) end
--}
  results[i + 2], nexts[i], keeps[i] = state or '', next, keep
  if not next then
    denied = denied + 2 ^ (i - 1)
    refused = refused or dry_run == 0
  end
end
results[1] = denied
--{counter
-- Of one that has room in a call that is refused, all of its state is told, as of one that has none.
if refused then
  for i = 1, #ARGV do
    if nexts[i] and byte(ARGV[i]) == 3 then results[i + 2] = call('GET', KEYS[i]) or '' end
  end
end
--}
