local function book_bucket(key, at, refund)
  local units, inc, inc_part, since, lead, most = unpack('<dddddd', at, 4)
  local state = call('GET', key)
  local full, part = 0, 0
  if state then full, part = unpack('<dd', state) end
  if refund then
    -- What was charged holds one unit less each time that one refills.
    inc = inc - math.max(now + lead - since, 0)
    if not state or inc < 0 then return end
    full, part = full - inc, part - inc_part
    if part < 0 then full, part = full - 1, part + units end
  else
    if full < now then full, part = now, 0 end
    full, part = full + inc, part + inc_part
    if part >= units then full, part = full + 1, part - units end
    if full > now + most then full, part = now + most, 0 end
  end
  if full < now then
    call('DEL', key)
  else
    call('SET', key, pack('<ddd', full, part, 0), 'PXAT', expiry(full - now))
  end
end
