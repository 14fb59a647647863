if refused then return results end
for i = 1, #ARGV do
  if nexts[i] and byte(ARGV[i], 3) ~= 0 then results[i + 2] = nexts[i] end
end
return results
