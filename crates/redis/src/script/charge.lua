if refused then return results end
for i = 1, #ARGV do
  local next, at = nexts[i], ARGV[i]
  local kind, _, charges = byte(at, 1, 3)
  if next and charges ~= 0 then
    results[i + 2] = next
--{lease
    if charges > 1 then
      local n, left, grown, kept
--{bucket
      if kind == 1 then n, left, grown, kept = lease_bucket(at, next) end
--}
--{window
      if kind == 2 then n, left, grown, kept = lease_window(at, next) end
--}
--{counter
      if kind == 3 then n, left, grown, kept = lease_counter(at, next) end
--}
      if n and left >= 1000 then
        call('SET', KEYS[#ARGV + charges - 1], n, 'PX', hold_ms)
        results[#results + 1], results[#results + 2], results[#results + 3] = i, n, left
        next, keeps[i] = grown, kept or keeps[i]
      end
    end
--}
    if kind == 4 then
--{log
      record(KEYS[i], at, keeps[i])
--}
    elseif keeps[i] then
      call('SET', KEYS[i], next, 'PXAT', expiry(keeps[i]))
    else
      call('SETRANGE', KEYS[i], 0, next)
    end
  end
end
--{reserve
call('SET', KEYS[#KEYS], '', 'PX', hold_ms)
--}
return results
