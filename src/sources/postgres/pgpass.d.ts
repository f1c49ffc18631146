/** Looks up passwords in libpq's password file; the package has no types of its own. */
declare module 'pgpass' {
  interface PasswordOwner {
    readonly host: string;
    readonly port: number;
    readonly database: string;
    readonly user: string;
  }
  /** Calls back with the password, or with undefined if there is none. */
  export default function pgPass(
    owner: PasswordOwner,
    callback: (password: string | undefined) => void,
  ): void;
}
