--{window
for i = 1, #ARGV do
  local kind, refunds = byte(ARGV[i], 1, 2)
  if kind == 2 and refunds == 0 then
    local _, _, _, number = place(ARGV[i])
    if not number then return { -1, now } end
  end
end
--}
-- Who takes the hold away books it: nobody else does, whatever is sent twice.
if #KEYS > #ARGV and call('DEL', KEYS[#KEYS]) == 0 then return { 0, now } end
for i = 1, #ARGV do
  local at = ARGV[i]
  local kind, refunds = byte(at, 1, 2)
--{bucket
  if kind == 1 then book_bucket(KEYS[i], at, refunds == 1) end
--}
--{window
  if kind == 2 then book_window(KEYS[i], at, refunds == 1) end
--}
--{counter
  if kind == 3 then book_counter(KEYS[i], at, refunds == 1) end
--}
--{log
  if kind == 4 then book_log(KEYS[i], at, refunds == 1) end
--}
end
return { 1, now }
