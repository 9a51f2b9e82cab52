/** Who runs the process, and where its home is, as libpq takes them where nothing is said. A container's numeric user may have neither a name nor a home. */
import { homedir, userInfo } from 'node:os';
import { AddressProblem } from './conninfo.ts';

/** The home directory; of a user that has none, the root. */
export function homeFolder(): string {
  try {
    return homedir();
  } catch {
    return '/';
  }
}

/** The name of the operating system's user. Throws AddressProblem where it has none. */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    throw new AddressProblem('an address that names a user: the one of this process has no name');
  }
}
